"""Registrations of series in an archive: through the server, and from a terminal."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

sys.path.append(str(Path(__file__).parents[1] / "dicom"))

from fake_archive import PASSWORD, USER, fake_archive

from retreg import wire
from retreg.cli import main
from retreg.files.dicom_registration import read_registration
from retreg.messages import Keypoints
from retreg.quality import Quality
from retreg.transforms import Affine
from retreg_server.dicom.archives import Archive
from retreg_server.registration import engine
from retreg_server.serving.settings import Settings

ORDERS = "/v1/dicomweb/registrations"


@pytest.fixture(scope="module")
def an_archive(tmp_path_factory, write_dicom):
    """An archive with two series of one patient; addresses are its series' UIDs."""
    with fake_archive() as running:
        running.addresses = {}
        for name in ("fixed", "moving"):
            folder = tmp_path_factory.mktemp("archive") / name
            folder.mkdir()
            study, series = running.put_series(folder, write_dicom, len(name))
            running.addresses[name] = {"study": study, "series": series}
        running.sent = dict(running.kept)
        yield running


@pytest.fixture(scope="module")
def server(an_archive, start_server):
    """A server that knows the archive."""
    known = Archive("hospital", an_archive.url, USER, PASSWORD)
    settings = Settings(reuse_results=False, archives={"hospital": known}, archive_idle_s=1.0)
    with start_server(settings) as running:
        yield running


@pytest.fixture
def archive(an_archive):
    """The archive as it was at first."""
    an_archive.kept, an_archive.asked, an_archive.mood = dict(an_archive.sent), [], "good"
    return an_archive


def order(running, **changes):
    return {"archive": "hospital", "model": "auto-brain", **running.addresses, **changes}


def ended(server, answer):
    assert answer.status_code == 202, answer.text
    where = answer.headers["Location"]
    end = time.monotonic() + 60
    while (status := server.get(where).json())["state"] in ("queued", "running"):
        assert time.monotonic() < end, status
        time.sleep(0.02)
    return status


def made(archive):
    """The new objects in the archive."""
    return [key for key in archive.kept if key not in archive.sent]


def test_two_series_are_fetched_registered_and_the_result_is_stored(archive, server):
    status = ended(server, server.post(ORDERS, json=order(archive, options={"shift": 3.0})))
    assert status["state"] == "done"
    new = made(archive)
    assert len(new) == 6
    stored = {(series, uid) for series, uids in status["stored"].items() for uid in uids}
    assert stored == {(series, uid) for _, series, uid in new}
    assert {study for study, _, _ in new} == {"1.2.3"}
    request = server.model.requests[-1]
    assert request.fixed.grid.size == (24, 20, 5)
    registration = server.get(f"/v1/registrations/{status['registration']}/result")
    assert registration.json()["provenance"]["options"]["shift"] == 3.0


def test_only_what_is_asked_for_is_stored_by_either_name_of_the_address(archive, server):
    wanted = order(archive, store=["report", "fiducials"])
    assert ended(server, server.post("/v1/dicom/registrations", json=wanted))["state"] == "done"
    assert len(made(archive)) == 2
    assert ended(server, server.post(ORDERS, json=order(archive, store=[])))["stored"] == {}
    assert len(made(archive)) == 2


@pytest.mark.parametrize("mood", ["redirect", "error", "garbage", "stall", "broken", "gaps", "cut"])
def test_nothing_is_stored_from_an_archive_that_misbehaves(archive, server, mood):
    archive.mood = mood
    status = ended(server, server.post(ORDERS, json=order(archive)))
    assert status["state"] == "failed"
    assert status["error"]["error"] == ("bad-file" if mood in ("gaps", "cut") else "archive")
    sentence = status["error"]["message"]
    assert sentence.endswith(".")
    assert ". " not in sentence
    assert made(archive) == []
    archive.mood = "good"
    assert ended(server, server.post(ORDERS, json=order(archive)))["state"] == "done"


@pytest.mark.parametrize(
    "changes",
    [
        {"archive": "other"},
        {"archive": "http://inside"},
        {"url": "http://inside"},
        {"fixed": {"study": "1.2.3", "series": "../../x"}},
        {"fixed": {"study": "1.2.3"}},
        {"store": ["everything"]},
    ],
)
def test_an_order_names_archives_and_series_and_nothing_else(archive, server, changes):
    answer = server.post(ORDERS, json=order(archive, **changes))
    assert answer.status_code == 422
    assert archive.asked == []


def test_a_failure_of_the_registration_is_that_of_the_order(archive, server):
    wanted = order(archive, options={"kind": "nothing"})
    status = ended(server, server.post(ORDERS, json=wanted))
    assert status["state"] == "failed"
    assert status["error"]["message"] == "Nothing in the two images looks alike."
    assert made(archive) == []


def test_an_order_tells_the_verdict_and_the_page_can_show_its_result(archive, server):
    status = ended(server, server.post(ORDERS, json=order(archive, store=[])))
    assert (status["verdict"], status["reason"]) == ("accept", "It looks right.")
    for part in ("look", "look/fixed", "look/moving"):
        assert server.get(f"/v1/registrations/{status['registration']}/{part}").ok


def edited(server, registration):
    """The id of that result after one keypoint was moved by hand."""
    result = wire.decode_result(wire.loads(
        server.get(f"/v1/registrations/{registration}/result").content
    ))  # fmt: skip
    message = {
        "fixed": result.fixed_keypoints.points.tolist(),
        "moving": (result.moving_keypoints.points + [2.0, 0.0, 0.0]).tolist(),
        "used": [True] * len(result.fixed_keypoints),
        "transform": "rigid",
        "reach_mm": 15.0,
    }
    return server.post(f"/v1/registrations/{registration}/refit", json=message).json()["id"]


def test_an_edited_result_is_stored_in_the_archive(archive, server, tmp_path):
    first = ended(server, server.post(ORDERS, json=order(archive, store=[])))["registration"]
    second = edited(server, first)
    count = len(server.model.requests)
    wanted = order(archive, registration=second, store=["registration", "series"])
    status = ended(server, server.post(ORDERS, json=wanted))
    assert (status["state"], status["registration"]) == ("done", second)
    assert len(server.model.requests) == count, "nothing is registered anew"
    kinds = {str(pydicom.dcmread(_file(archive, key)).Modality): key for key in made(archive)}
    assert set(kinds) == {"MR", "REG"}
    (tmp_path / "stored.dcm").write_bytes(archive.kept[kinds["REG"]])
    result = wire.loads(server.get(f"/v1/registrations/{second}/result").content)
    points = np.random.default_rng(0).uniform(0, 20, (9, 3))
    expected = wire.decode_transform(result["transform"])(points)
    found = read_registration(tmp_path / "stored.dcm").transform(points)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("which", ["unknown", "other images"])
def test_a_result_of_other_images_is_not_stored(archive, server, which):
    first = ended(server, server.post(ORDERS, json=order(archive, store=[])))["registration"]
    wanted = order(archive, registration="0" * 32 if which == "unknown" else first)
    if which == "other images":
        wanted |= {"fixed": wanted["moving"], "moving": wanted["fixed"]}
    status = ended(server, server.post(ORDERS, json=wanted))
    assert status["state"] == "failed"
    assert status["error"]["message"].endswith(".")
    assert made(archive) == []


def test_the_only_archive_needs_no_name(archive, server, start_server):
    unnamed = {name: value for name, value in order(archive).items() if name != "archive"}
    assert ended(server, server.post(ORDERS, json=unnamed))["state"] == "done"
    two = {name: Archive(name, archive.url, USER, PASSWORD) for name in ("a", "b")}
    with start_server(Settings(archives=two)) as other:
        answer = other.post(ORDERS, json=unnamed)
    assert answer.status_code == 422
    assert "know 2 archives" in answer.json()["message"]


def test_no_uid_reaches_the_log(archive, server, caplog):
    uids = {uid for address in archive.addresses.values() for uid in address.values()}
    link = "&".join(f"{role}={each['series']}" for role, each in archive.addresses.items())
    with caplog.at_level("DEBUG"):
        assert ended(server, server.post(ORDERS, json=order(archive)))["state"] == "done"
        page = server.get(f"/look?study={archive.addresses['fixed']['study']}&{link}")
    assert page.status_code == 200
    assert page.url.endswith(link)
    assert "/look" in caplog.text
    lines = [each.getMessage() for each in caplog.records if each.name.startswith("retreg")]
    assert not [line for line in lines if any(uid in line for uid in uids)]


def test_an_order_can_be_cancelled_and_forgotten(archive, server):
    answer = server.post(ORDERS, json=order(archive, options={"steps": 1000}))
    where = answer.headers["Location"]
    while server.get(where).json()["registration"] is None:
        time.sleep(0.02)
    assert server.delete(where).status_code == 204
    assert ended(server, answer)["state"] == "cancelled"
    assert made(archive) == []
    assert server.delete(where).status_code == 204
    assert server.get(where).status_code == 404


@pytest.fixture
def settings_file(archive, tmp_path):
    (tmp_path / "secret").write_text(PASSWORD)
    path = tmp_path / "retreg.toml"
    path.write_text(
        f'[archives.hospital]\nurl = "{archive.url}"\nuser = "{USER}"\n'
        f'password_file = "{tmp_path / "secret"}"\n'
    )
    return str(path)


@pytest.fixture
def verdict(monkeypatch):
    """Stands in for the registration; what it is judged to be can be changed."""
    points = Keypoints(np.zeros((1, 3)), np.ones(1), np.ones(1, bool))
    estimate = engine.Estimate(Affine.identity(), points, points, Affine.identity())
    judged = {"verdict": "accept"}
    monkeypatch.setattr(engine, "assess", lambda *_: Quality({}, judged["verdict"], "A stand-in."))
    monkeypatch.setattr(engine, "_both_ways", lambda *_: estimate)
    return judged


def command(archive, settings_file, *more):
    uids = {role: f"{each['study']}/{each['series']}" for role, each in archive.addresses.items()}
    named = [f"--{role}={each}" for role, each in uids.items()]
    fixed = ["--config", settings_file, "--model", "auto-brain"]
    return ["dicomweb-register", "hospital", *named, *fixed, *more]


def test_a_terminal_does_the_same(archive, settings_file, verdict, capsys):
    assert main(command(archive, settings_file)) == 0
    said = capsys.readouterr().out
    assert said.startswith("accept: A stand-in.")
    for _, series, _ in made(archive):
        assert series in said
    objects = [pydicom.dcmread(_file(archive, key)) for key in made(archive)]
    assert {data.Modality for data in objects} == {"MR", "REG"}
    verdict["verdict"] = "fail"
    count = len(made(archive))
    assert main(command(archive, settings_file)) == 3
    assert len(made(archive)) == count
    assert "Nothing is stored" in capsys.readouterr().out


def _file(archive, key):
    from io import BytesIO

    return BytesIO(archive.kept[key])


@pytest.mark.usefixtures("verdict")
def test_what_is_wrong_is_told_in_one_sentence(archive, settings_file, capsys):
    assert main(["dicomweb-register", "other", *command(archive, settings_file)[2:]]) == 2
    assert "There is no archive 'other'" in capsys.readouterr().err
    archive.mood = "error"
    assert main(command(archive, settings_file)) == 4
    assert "answered with the error 500" in capsys.readouterr().err
    archive.mood = "good"
    for wrong in (["--store", "everything"], ["--fixed", "nothing"]):
        with pytest.raises(SystemExit):
            main(command(archive, settings_file, *wrong))


def test_the_settings_hold_no_secret_that_is_shown(archive):
    known = Archive("hospital", archive.url, USER, PASSWORD)
    assert PASSWORD not in repr(replace(Settings(), archives={"hospital": known}))
