"""Links from other viewers to two series of an archive, opened in a real Chromium."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "dicom"))
sys.path.append(str(Path(__file__).parents[1] / "serving"))

from browser import Page, shown_browser
from fake_archive import PASSWORD, USER, fake_archive
from served import served

from retreg_server.dicom.archives import Archive
from retreg_server.serving.settings import Settings
from retreg_server.serving.workers.executor import LocalExecutor

TOKEN = "the-token-of-this-test"


@pytest.fixture(scope="module")
def archive(tmp_path_factory, write_dicom):
    """An archive with a study of two series; links: their UIDs as parameters."""
    with fake_archive() as running:
        links = ["study=1.2.3"]
        for role in ("fixed", "moving"):
            folder = tmp_path_factory.mktemp(role)
            _, series = running.put_series(folder, write_dicom, len(role))
            links.append(f"{role}={series}")
        running.link = "&".join(links)
        yield running


@pytest.fixture(scope="module")
def server(archive, tmp_path_factory):
    """The address of a server with a token, whose models are stand-ins."""
    arguments = {"folder": str(tmp_path_factory.mktemp("requests"))}

    def executor(settings, metrics):
        worker = "fake_engine:fake_worker"
        return LocalExecutor(settings.devices, metrics.restarts.inc, worker, arguments)

    known = Archive("hospital", archive.url, USER, PASSWORD)
    settings = Settings(token=TOKEN, archives={"hospital": known}, archive_idle_s=1.0)
    with served(settings, executor) as url:
        yield url


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with shown_browser(tmp_path_factory.mktemp("profile"), 1000, 700) as opened:
        yield opened


def reason(page: Page) -> str:
    return page.run("document.getElementById('reason').textContent")


def test_a_link_registers_two_series_and_opens_the_pair(page, server, archive):
    before = dict(archive.kept)
    page.errors.clear()
    page.open(f"{server}/look?{archive.link}&model=auto-brain#token={TOKEN}")
    page.wait_for("document.getElementById('word').textContent === 'accept'")
    assert page.run("document.querySelector('main').hidden") is False
    assert page.run("document.getElementById('waiting').hidden") is True
    where = page.run("location.href")
    assert len(where.rpartition("/")[2]) == 32, "the address is that of the result"
    assert "1.2.3" not in where
    assert TOKEN not in where
    assert archive.kept == before, "a link stores nothing"
    assert page.errors == []


def test_what_was_corrected_by_hand_is_stored_in_the_archive(page, server, archive):
    before = dict(archive.kept)
    page.open(f"{server}/look?{archive.link}&model=auto-brain#token={TOKEN}")
    page.wait_for("document.getElementById('word').textContent === 'accept'")
    page.run(
        "(e => { e.value = 'affine'; e.dispatchEvent(new Event('input')); })"
        "(document.getElementById('way'))"
    )
    assert page.run("document.getElementById('archive').disabled") is True
    page.run("document.getElementById('store').click()")
    page.wait_for("/Stored as/.test(document.getElementById('stored').textContent)")
    page.run("document.getElementById('archive').click()")
    page.wait_for("/in the archive/.test(document.getElementById('stored').textContent)")
    assert len(archive.kept) - len(before) == 6
    archive.kept = before


def test_without_the_token_a_link_registers_nothing(page, server, archive):
    archive.asked.clear()
    page.open(f"{server}/look?{archive.link}&model=auto-brain")
    page.wait_for("!document.getElementById('login').hidden")
    assert archive.asked == []
    page.run(f"document.getElementById('token').value = '{TOKEN}'")
    page.run("document.querySelector('#login button').click()")
    page.wait_for("document.getElementById('word').textContent === 'accept'")


@pytest.mark.parametrize(
    ("link", "sentence"),
    [
        ("study=1.2.3&fixed=1.2.3.4&moving=1.2.3.5", "has no such series"),
        ("study=1.2.3&fixed=1.2.3.4", "it does not say which series is moving"),
        ("study=1.2.3&fixed=../x&moving=1.2.3.4", "fixed is no UID"),
        ("patient=1", "it has 'patient', where only study"),
        ("archive=other&study=1.2.3&fixed=1.2.3.4&moving=1.2.3.5", "no archive 'other'"),
    ],
)
def test_a_wrong_link_is_told_in_a_sentence(page, server, link, sentence):
    page.open(f"{server}/look?{link}#token={TOKEN}")
    page.wait_for("/[.]$/.test(document.getElementById('reason').textContent)")
    assert sentence in reason(page)
    assert page.run("document.querySelector('main').hidden") is True
    assert page.run("document.getElementById('waiting').hidden") is True


def test_a_registration_of_a_link_is_cancelled_on_the_page(page, server, archive):
    archive.mood = "stall"
    try:
        page.open(f"{server}/look?{archive.link}#token={TOKEN}")
        page.wait_for("!document.getElementById('waiting').hidden")
        page.run("document.getElementById('cancel').click()")
        page.wait_for("document.getElementById('waiting').hidden")
    finally:
        archive.mood = "good"
    assert "cancelled" in reason(page)
