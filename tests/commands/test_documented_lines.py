"""Every line that README and the pages of docs/ tell the reader to type works as written."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from documented import ROOT, blocks, commands

from retreg.files import write_image, write_transform
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Affine
from retreg_server.cli import VERBS, _parser, main
from retreg_server.serving.routes.dicomweb import ArchiveOrder

RETREG = re.compile(r"^(?:\.venv/bin/)?retreg (.*)$")
# For administrators: these change the machine or need Docker or a cluster, and are not run here.
OF_A_MACHINE = (
    "python3 -m venv /opt", "python3 -m pip download", "/opt/retreg/bin/", "pip install",
    "install -", "(umask", "cp SlicerRetReg/Resources/", "awk -f ", "docker ", "export RAY", "ray ",
    "py -3", "C:\\retreg", "schtasks ",
)  # fmt: skip
# Blocks that show something and are no commands.
SHOWN = ("one process", "├──", "└──", "F(x)", "B(T(x))")
SHIFT = Affine(np.array([[1, 0, 0, 3], [0, 1, 0, -2], [0, 0, 1, 0], [0, 0, 0, 1.0]]))


def retreg_lines(*verbs: str) -> list[str]:
    """What follows `retreg`, without doubles, of those verbs."""
    found = [match[1] for _, line in commands() if (match := RETREG.match(line))]
    return [line for line in dict.fromkeys(found) if line.split()[0] in verbs]


def is_known(line: str) -> bool:
    """Whether a test below, or tests/serving/test_documented_requests.py, takes care of it."""
    known = ("make ", "curl ", "monailabel ", *OF_A_MACHINE, *SHOWN)
    return bool(RETREG.match(line)) or line.startswith(known)


def test_every_line_of_every_page_is_taken_care_of():
    assert [line for _, line in commands() if not is_known(line)] == []
    assert {block.language for block in blocks()} <= {"", "python", "json", "js"}  # tests/look


def test_the_lines_are_found():
    pages = {page for page, _ in commands()}
    assert {"README.md", "quick-start.md", "transforms.md", "protocol.md", "viewers.md"} <= pages
    assert len(retreg_lines("apply", "convert")) >= 10  # no line twice


def test_the_app_for_monai_label_is_started_as_it_needs():
    """That MONAI Label takes these words, tests/serving/test_monailabel_app.py sees."""
    lines = [shlex.split(line) for _, line in commands() if line.startswith("monailabel ")]
    assert lines
    for _, verb, *words in lines:
        assert verb == "start_server"
        assert {word for word in words if word.startswith("--")} == {"--app", "--studies", "--conf"}
        assert (ROOT / words[words.index("--app") + 1] / "main.py").is_file()
        name, url = words[words.index("--conf") + 1 : words.index("--conf") + 3]
        assert (name, url[:7]) == ("server", "http://")


@pytest.mark.parametrize("line", retreg_lines("apply", "convert"))
def test_a_line_that_applies_or_converts_works_as_written(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    a_folder(pictures=".nii.gz" not in line and ".lta" not in line)
    words = shlex.split(line)
    out = Path(words[words.index("-o") + 1])
    out.unlink(missing_ok=True)
    assert main(words) == 0
    assert out.stat().st_size > 0


@pytest.mark.parametrize("line", retreg_lines("register"))
def test_a_line_that_registers_works_as_written(tmp_path, monkeypatch, write_dicom, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("retreg_server.registration.engine.register", shifted)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    picture = Image(np.moveaxis(pixels, -1, 0)[:, None], Grid.of_picture(64, 48))
    for name in ("colour.jpg", "angiogram.png", "mask.png"):
        write_image("picture.png", picture)
        Path("picture.png").rename(name)
    photograph = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.5.1", "Modality": "OP",
                  "StudyInstanceUID": "1.2.3", "ImageLaterality": "R"}  # fmt: skip
    for role in ("first.dcm", "second.dcm"):
        write_dicom(tmp_path / role, pixels, **photograph)
    assert main(shlex.split(line)) == 0
    assert json.loads(Path("out/result.json").read_text("utf-8"))["verdict"] == "accept"
    assert ("--dicom" in line) == Path("out/dicom/registered.dcm").exists()


@pytest.mark.parametrize(
    "line", retreg_lines(*(verb for verb in VERBS if verb not in ("apply", "convert", "register")))
)
def test_another_line_is_understood(line):
    parser, verb = _parser(shlex.split(line))
    assert verb is not None
    parser.parse_args(shlex.split(line))


@pytest.mark.parametrize(
    "target", sorted({line.split()[1] for _, line in commands() if line.startswith("make ")})
)
def test_make_knows_the_target(target):
    found = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout


def test_the_table_of_commands_names_every_verb_and_no_other():
    table = (ROOT / "docs/commands.md").read_text("utf-8")
    assert set(re.findall(r"`retreg ([a-z-]+)", table)) == set(VERBS)


def test_the_order_to_an_archive_is_one_that_the_server_takes():
    (line,) = [line for _, line in commands() if "/v1/dicomweb/" in line]
    body = shlex.split(line)[shlex.split(line).index("-d") + 1]
    assert ArchiveOrder.model_validate_json(body).archive == "hospital"


@pytest.mark.parametrize("line", [x for _, x in commands() if x.startswith(OF_A_MACHINE)])
def test_a_line_for_administrators_is_sound_and_names_files_that_are_there(line):
    subprocess.run(["bash", "-n", "-c", line], check=True)
    for path in re.findall(r"-[fc] ([\w/.]+\w)", line):
        assert (ROOT / path).exists()


def shifted(request, *_) -> RegistrationResult:
    """An engine that knows one answer."""
    points = Keypoints(np.array([[5.0, 6, 0], [20, 8, 0]]), np.ones(2), np.ones(2, bool))
    quality = Quality({"agreement": 0.9}, "accept", "It is right.")
    provenance = {"model": request.model, "options": {"transform": "affine"}, "version": "1"}
    return RegistrationResult(SHIFT, points, points, quality, provenance)


def a_folder(pictures: bool) -> None:
    """The files that the lines name, of pictures or of volumes."""
    grid = Grid.of_picture(40, 30) if pictures else Grid((12, 14, 10), np.diag([2.0, 2, 3, 1]))
    values = np.random.default_rng(0).integers(0, 255, (1, *grid.shape), np.uint8)
    image = Image(values, grid)
    Path("out").mkdir()
    write_transform("out/transform.h5", SHIFT, grid)
    write_image("out/fixed.nrrd", image)
    if pictures:
        Path("mosaic/transforms").mkdir(parents=True)
        write_transform("mosaic/transforms/02-macula.h5", SHIFT, grid)
        write_image("mosaic/mosaic.png", image)
    names = ("moving.png", "fixed.png", "angiogram.png", "macula.png") if pictures else (
        "fixed.nii.gz", "moving.nii.gz", "labels.nii.gz"
    )
    for name in names:
        write_image(name, image)
    for name in ("fixed.csv", "moving.csv"):
        Path(name).write_text("x,y,z\n1,2,0\n")
    if not pictures:
        volume = sitk.ReadImage("moving.nii.gz")
        sitk.WriteImage(sitk.JoinSeries([volume] * 3), "bold.nii.gz")
        ants = ROOT / "tests/retreg/files/recorded/ants"
        for name in ("1Warp.nii.gz", "0GenericAffine.mat"):
            shutil.copy(ants / name, name)
