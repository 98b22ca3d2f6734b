"""Every request and every piece of Python in README and docs/ works as written."""

from __future__ import annotations

import base64
import json
import re
import struct
import subprocess
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from documented import PAGES, blocks, commands, python_blocks

import retreg
from retreg.geometry import Grid
from retreg.image import Image
from retreg.wire.transforms import decode_transform
from retreg_server.phantoms.fundus import make_fundus_pair

ADDRESS = "http://127.0.0.1:8600"
# Slicer's own page is run in tests/slicer, the lines for SimpleITK in tests/commands.
ELSEWHERE = {"slicer.md", "quick-start.md"}


def requests_in_pages() -> list[str]:
    found = [line for _, line in commands() if line.startswith("curl")]
    return [line for line in found if "/v1/dicomweb/" not in line]  # needs an archive


@pytest.fixture(scope="module")
def pair():
    return make_fundus_pair(4, 384, rotation_deg=20.0)


@pytest.fixture
def here(tmp_path, monkeypatch, pair, write_dicom) -> Path:
    """A folder with the files that the pages name, as the working one."""
    monkeypatch.chdir(tmp_path)
    for name in ("fixed.png", "colour.png"):
        retreg.write_image(name, pair.fixed)
    for name in ("moving.png", "angiogram.png"):
        retreg.write_image(name, pair.moving)
    values = np.random.default_rng(0).integers(0, 900, (1, 9, 10, 11), np.int16)
    for name in ("t1.nii.gz", "t2.nii.gz"):
        retreg.write_image(name, Image(values, Grid((11, 10, 9), np.diag([2.0, 2, 3, 1]))))
    for n, plane in enumerate(values[0]):
        write_dicom(
            f"IM{n + 1:04}", plane, Modality="MR", PixelSpacing=[2.0, 2.0],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[0, 0, 3.0 * n],
        )  # fmt: skip
    with ZipFile("series.zip", "w") as packed:
        for path in sorted(tmp_path.glob("IM*")):
            packed.write(path, f"a folder/{path.name}")
    return tmp_path


@pytest.mark.parametrize("line", requests_in_pages())
def test_a_request_works_as_written(here, a_server, line):
    command = line.replace("curl", "curl -sS --fail-with-body", 1)
    found = subprocess.run(
        ["bash", "-c", command.replace(ADDRESS, a_server.url)], cwd=here, capture_output=True
    )
    assert found.returncode == 0, found.stdout + found.stderr
    asked_for = re.search(r"-o (\S+)", line)
    content = (here / asked_for[1]).read_bytes() if asked_for else found.stdout
    if not asked_for:
        assert json.loads(content)["quality"]["verdict"] == "accept"
    assert len(content) > 100


@pytest.mark.parametrize(
    "page", [p.name for p in PAGES if python_blocks(p.name) and p.name not in ELSEWHERE]
)
@pytest.mark.usefixtures("here")
def test_the_python_of_a_page_runs_from_top_to_bottom(a_server, page):
    names: dict = {"retreg": retreg}
    if any("MONAILabelClient" in text for text in python_blocks(page)):
        client = pytest.importorskip("monailabel.client.client")
        names["MONAILabelClient"] = client.MONAILabelClient
    for text in python_blocks(page):
        exec(text.replace(ADDRESS, a_server.url), names)
    assert names["result"] is not None


def test_pages_that_are_run_elsewhere_have_python():
    assert {block.page for block in blocks() if block.language == "python"} >= ELSEWHERE


def test_requests_are_found():
    assert len(requests_in_pages()) >= 2


def the_example() -> tuple[dict, dict[tuple, tuple]]:
    """The transform that the page gives, and where it says that points go."""
    (text,) = [block.text for block in blocks() if block.language == "json"]
    page = next(p for p in PAGES if p.name == "protocol.md").read_text("utf-8")
    sentence = page[page.index("This chain takes") : page.index("```json")].replace("−", "-")
    numbers = [tuple(map(float, each.split(","))) for each in re.findall(r"\(([^)]+)\)", sentence)]
    return json.loads(text), dict(zip(numbers[::2], numbers[1::2], strict=True))


def test_the_example_of_a_chain_and_a_field_is_right():
    message, expected = the_example()
    assert len(expected) == 2
    transform = decode_transform(message)
    for point, moved in expected.items():
        np.testing.assert_allclose(transform([point]), [moved], atol=1e-12)


def test_a_reader_who_follows_the_page_gets_the_same_numbers():
    message, expected = the_example()
    field, affine = message["transforms"]
    i, j, k = field["grid"]["size"]
    counts = struct.unpack(f"<{3 * i * j * k}h", base64.b64decode(field["data"]))
    assert counts == (0, 250, 0, -100, 0, 0)
    for point, moved in expected.items():
        index = np.linalg.inv(field["grid"]["world_from_index"]) @ [*point, 1]
        along = min(max(index[0], 0), i - 1)  # a single node along the other axes
        low = min(int(along), i - 2)
        per_axis = [counts[axis * i + low : axis * i + low + 2] for axis in range(3)]
        shift = [(a + (along - low) * (b - a)) / 100 for a, b in per_axis]
        found = affine["moving_from_fixed"] @ np.array([*np.add(point, shift), 1])
        np.testing.assert_allclose(found[:3], moved)
