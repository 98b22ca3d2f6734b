"""The pages of docs/ as a web site: complete, without dead links, and without outside addresses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("material", reason="mkdocs-material is not installed")

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)#\s]+)(#[\w-]*)?\)")
LOADED = re.compile(r"""<(?:script|img|link)\b[^>]*?(?:src|href)=["']?(https?://[^"'\s>]+)""")


def build(folder: Path, config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d",
               str(folder)]  # fmt: skip
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "http_proxy": "http://127.0.0.1:9",
                   "https_proxy": "http://127.0.0.1:9"}  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(folder, ROOT / "mkdocs.yml")
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_in_the_site_and_in_its_table_of_contents(site):
    start = (site / "index.html").read_text("utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").exists()
        assert f"{page.stem}.html" in start


def test_nothing_is_loaded_from_elsewhere_when_a_page_is_read(site):
    for page in site.glob("*.html"):
        assert LOADED.findall(page.read_text("utf-8")) == []
    for style in site.rglob("*.css"):
        assert "url(http" not in style.read_text("utf-8")


@pytest.mark.parametrize("text", ["[a](gone.md)", "[a](index.md#gone)", "![](images/gone.png)"])
def test_a_dead_link_stops_the_build(tmp_path, text):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(f"# A page\n\n{text}\n")
    config = (ROOT / "mkdocs.yml").read_text("utf-8")
    (tmp_path / "mkdocs.yml").write_text(config.partition("nav:\n")[0])
    assert build(tmp_path / "site", tmp_path / "mkdocs.yml").returncode != 0


def test_the_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text("utf-8")
    places = [place for place, _ in LINK.findall(text) if not place.startswith("http")]
    assert len(places) >= 15
    assert [place for place in places if not (ROOT / place).exists()] == []


def test_the_readme_leads_to_every_page():
    text = (ROOT / "README.md").read_text("utf-8")
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - {"docs/index.md"}
    assert pages <= {place for place, _ in LINK.findall(text)}


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/gallery.md"])
def test_simulated_images_are_called_that_and_real_ones_are_credited(page):
    text = (ROOT / page).read_text("utf-8")
    assert "made-up" not in text
    assert "simulated" in text
    assert "University of Ljubljana" in text or "gallery.md#a-real-head" in text
