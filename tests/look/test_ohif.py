"""The panel in the unmodified OHIF of npm, in a real Chromium, against a real archive."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import requests
from pydicom.uid import generate_uid

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "dicom"))
sys.path.append(str(Path(__file__).parents[1] / "serving"))

from browser import Page, shown_browser
from made_up_dicom import MR, STUDY
from ohif_site import DIST, PANEL, ohif_site
from orthanc import is_installed, running_orthanc
from served import served

from retreg.image import Image
from retreg.resample import resample
from retreg_server.dicom.archives import SeriesName
from retreg_server.dicom.careful_session import Bounds
from retreg_server.dicom.dicomweb import fetched_image
from retreg_server.phantoms.head import make_head_pair
from retreg_server.phantoms.pair import PhantomPair
from retreg_server.serving.routes.viewers import OHIF
from retreg_server.serving.settings import Settings

TOKEN = "the-token-of-this-test"
STUDY_UID = "1.2.3.4"
WIDTH, HEIGHT = 1360, 800


def store(archive, write_dicom, folder: Path, image: Image, number: int, name: str) -> str:
    """Store a volume as a series; its UID."""
    folder.mkdir()
    series, frame, matrix = generate_uid(), generate_uid(), image.grid.world_from_index
    spacing = image.grid.spacing
    axes = (matrix[:3, :2] / spacing[:2]).T.ravel()
    files = {}
    for k, pixels in enumerate(np.clip(image.array[0], 0, 4000).astype(np.int16)):
        position = matrix[:3] @ [0, 0, k, 1]
        path = write_dicom(
            folder / f"{k}.dcm", pixels,
            **{**STUDY, "StudyInstanceUID": STUDY_UID, "SeriesInstanceUID": series,
               "PatientName": "Phantom^Head", "PatientComments": "", "ImageComments": "",
               "FrameOfReferenceUID": frame, "SOPClassUID": MR, "Modality": "MR",
               "SeriesNumber": number, "InstanceNumber": k + 1, "SeriesDescription": name,
               "BodyPartExamined": "BRAIN", "PositionReferenceIndicator": "",
               "PatientPosition": "HFS", "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
               "PixelSpacing": [float(spacing[1]), float(spacing[0])],
               "SliceThickness": float(spacing[2]),
               "ImageOrientationPatient": [float(f"{c:.10f}") for c in axes],
               "ImagePositionPatient": [float(f"{c:.8f}") for c in position]},
        )  # fmt: skip
        files[path.name] = path.read_bytes()
    instances = archive.url.replace("/dicom-web", "/instances")
    for content in files.values():
        login = (archive.user, archive.password)
        assert requests.post(instances, data=content, auth=login, timeout=10).ok
    return str(series)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    if not is_installed():
        pytest.skip("Orthanc with its DICOMweb plugin is not installed")
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture(scope="module")
def heads() -> PhantomPair:
    """One head in two scans, turned against each other."""
    return make_head_pair(seed=4, spacing_mm=4.0, rotation_deg=15.0)


@pytest.fixture(scope="module")
def series(archive, heads, write_dicom, tmp_path_factory) -> tuple[str, str]:
    """The UIDs of both series of a study."""
    folder = tmp_path_factory.mktemp("heads")
    return (
        store(archive, write_dicom, folder / "t1", heads.fixed, 1, "T1"),
        store(archive, write_dicom, folder / "t2", heads.moving, 2, "T2"),
    )


@pytest.fixture(scope="module")
def site(archive):
    """The origin of an OHIF whose panel comes from a server that needs a token."""
    if not (DIST / "index.html").is_file():
        pytest.skip("OHIF is not there; run make test-viewers")
    with ohif_site(archive) as (origin, handler):
        settings = Settings(
            token=TOKEN, archives={archive.name: archive}, cors_origins=(origin,), devices=("cpu",)
        )
        with served(settings) as server:
            handler.module = f"{server}/viewers/ohif.js"
            yield origin


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with shown_browser(tmp_path_factory.mktemp("profile"), WIDTH, HEIGHT) as opened:
        yield opened


def click(page: Page, element: str) -> None:
    page.run(f"document.querySelector('{element}').click()")


def said(page: Page) -> str:
    return page.run("document.querySelector('#retreg-said').textContent")


@pytest.fixture(scope="module")
def panel(page, site, series) -> Page:  # noqa: ARG001 - they are in the archive
    """OHIF with the study and the panel open, after the token was given."""
    page.errors.clear()
    page.open(f"{site}/viewer?StudyInstanceUIDs={STUDY_UID}")
    page.wait_for("document.querySelector('.shepherd-button')", 60)
    click(page, ".shepherd-button")  # the tour through OHIF
    page.wait_for("document.querySelector('[data-cy=registration-btn]')")
    click(page, "[data-cy=registration-btn]")
    page.wait_for("document.querySelector('.retreg form:not([hidden])')")
    assert said(page) == "The server needs a token."
    page.run(f"document.querySelector('.retreg form input').value = '{TOKEN}'")
    click(page, ".retreg form button")
    page.wait_for("document.querySelector('#retreg-model').length > 2")
    page.wait_for("document.querySelector('#retreg-fixed').length == 2")
    return page


def series_of(archive) -> dict[str, str]:
    """The UIDs of the series of the study, by what they hold."""
    login = (archive.user, archive.password)
    found = requests.get(f"{archive.url}/studies/{STUDY_UID}/series", auth=login, timeout=10)
    rows = [{tag: row[tag]["Value"][0] for tag in ("00080060", "0008103E", "0020000E")}
            for row in found.json()]  # fmt: skip
    return {f"{row['00080060']} {row['0008103E']}": row["0020000E"] for row in rows}


def test_the_two_lines_of_the_docs_name_the_module_and_its_panel():
    text = (Path(__file__).parents[2] / "docs/viewers.md").read_text("utf-8")
    lines = text.partition("```js\n")[2].partition("```")[0].splitlines()
    assert len(lines) == 2
    assert "/viewers/ohif.js" in lines[0]
    assert f"'{PANEL}'" in lines[1]
    module = OHIF.read_text("utf-8")
    extension, _, name = PANEL.split(".")
    assert f'id: "{extension}"' in module
    assert f'name: "{name}"' in module


def test_a_registration_is_cancelled_in_ohif(panel, archive):
    models = panel.run("[...document.querySelector('#retreg-model').options].map(o => o.value)")
    assert "auto-brain" in models
    assert "auto-fundus" not in models
    click(panel, "#retreg-start")
    panel.wait_for("!document.querySelector('#retreg-cancel').disabled")
    panel.wait_for("document.querySelector('progress').value > 0")
    click(panel, "#retreg-cancel")
    panel.wait_for("!document.querySelector('#retreg-start').disabled", 60)
    assert said(panel) == "The registration was cancelled."
    assert set(series_of(archive)) == {"MR T1", "MR T2"}
    assert panel.errors == []


def test_two_series_are_registered_and_overlaid_in_ohif(panel, archive, heads, tmp_path):
    click(panel, "#retreg-start")
    panel.wait_for("!document.querySelector('#retreg-overlay').hidden", 120)
    assert said(panel).startswith("accept: ")
    link = panel.run("document.querySelector('a.retreg-look').href")
    assert re.search(rf"/look/[0-9a-f]{{32}}\?study={STUDY_UID}&.*#token={TOKEN}$", link)
    (name,) = (name for name in series_of(archive) if name.startswith("MR RetReg"))
    wanted = SeriesName(STUDY_UID, series_of(archive)[name])
    expected = resample(heads.moving, heads.truth, heads.fixed.grid).array
    seen = fetched_image(archive, wanted, Bounds(50_000_000, 10.0, 60.0))[0].array
    assert np.corrcoef(seen.ravel(), expected.ravel())[0, 1] > 0.98
    click(panel, "#retreg-overlay")
    viewport = "cornerstone.getEnabledElements()[0].viewport"
    panel.wait_for(f"{viewport}.getActors().length == 2")
    layers = panel.run(f"{viewport}.getActors().map(a => a.referencedId)")
    assert layers[0] != layers[1]
    opacity = f"{viewport}.getProperties({viewport}.getActors()[1].referencedId).colormap.opacity"
    panel.wait_for(f"JSON.stringify({opacity}).includes('0.5')")
    panel.run(f"{viewport}.scroll(28)")
    panel.wait_for("document.body.innerText.includes('(29/54)')")
    panel.photograph(tmp_path / "overlaid.png")
    with PIL.Image.open(tmp_path / "overlaid.png") as picture:
        middle = np.asarray(picture.convert("L").crop((500, 250, 860, 600)), dtype=float)
    assert middle.mean() > 40
    assert middle.std() > 10
    assert panel.errors == []
    if "RETREG_PICTURES" in os.environ:
        shutil.copy(tmp_path / "overlaid.png", Path(os.environ["RETREG_PICTURES"]) / "ohif.png")
