"""Every line that README and docs/transforms.md give for `retreg apply` and `convert` works."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from retreg.files import write_image, write_transform
from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Affine
from retreg_server.cli import main

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^(?:\.venv/bin/)?retreg ((?:apply|convert) .*)$", re.MULTILINE)


def lines():
    texts = [(ROOT / name).read_text() for name in ("README.md", "docs/transforms.md")]
    blocks = [block for text in texts for block in text.split("```")[1::2]]
    return [line.partition("#")[0].strip() for block in blocks for line in LINE.findall(block)]


def a_folder(pictures):
    """The files that the lines name, of pictures or of volumes."""
    grid = Grid.of_picture(40, 30) if pictures else Grid((12, 14, 10), np.diag([2.0, 2, 3, 1]))
    values = np.random.default_rng(0).integers(0, 255, (1, *grid.shape), np.uint8)
    image = Image(values, grid)
    shift = Affine(np.array([[1, 0, 0, 3], [0, 1, 0, -2], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    Path("out").mkdir()
    write_transform("out/transform.h5", shift, grid)
    write_image("out/fixed.nrrd", image)
    names = ("moving.png", "fixed.png", "angiogram.png") if pictures else (
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


@pytest.mark.parametrize("line", lines())
def test_a_documented_line_works_as_written(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    a_folder(pictures=".nii.gz" not in line and ".lta" not in line)
    words = shlex.split(line)
    out = Path(words[words.index("-o") + 1])
    out.unlink(missing_ok=True)
    assert main(words) == 0
    assert out.stat().st_size > 0


def test_the_lines_are_found():
    assert len(lines()) >= 11
