"""`retreg register` with masks and an initial transform, as a user types it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from retreg.files import write_image, write_transform
from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Affine
from retreg_server.cli import main
from retreg_server.phantoms.fundus import make_fundus_pair


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    """Two pictures of an eye, a mask of them, a wrong one, and the truth as a transform."""
    folder = tmp_path_factory.mktemp("guided")
    pair = make_fundus_pair(2, size=320, rotation_deg=40, elastic_px=0)
    write_image(folder / "fixed.png", pair.fixed)
    write_image(folder / "moving.png", pair.moving)
    mask = np.full((1, 1, 320, 320), 255, np.uint8)
    mask[..., :80] = 0
    write_image(folder / "mask.png", Image(mask, pair.fixed.grid))
    write_image(folder / "long.png", Image(mask[..., :160, :], Grid.of_picture(320, 160)))
    write_transform(folder / "start.tfm", pair.truth, pair.fixed.grid)
    mirror = Affine(np.diag([-1.0, 1.0, 1.0, 1.0]))
    write_transform(folder / "mirror.tfm", mirror, pair.fixed.grid)
    return folder, pair


def register(folder, out, *words):
    images = [str(folder / "fixed.png"), str(folder / "moving.png")]
    given = [str(folder / word) if "." in word else word for word in words]
    return main(["register", *images, "-o", str(out), "--transform", "affine", *given])


def test_masks_and_an_initial_transform_are_used_and_written_down(eyes, tmp_path):
    folder, pair = eyes
    words = ("--fixed-mask", "mask.png", "--moving-mask", "mask.png", "--initial", "start.tfm")
    assert register(folder, tmp_path / "out", *words) == 0
    said = json.loads((tmp_path / "out" / "result.json").read_text())
    assert said["verdict"] == "accept"
    assert said["counted"] == {"fixed": 0.75, "moving": 0.75}
    assert np.allclose(said["initial"], pair.truth.moving_from_fixed, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--initial", "nowhere.tfm"), "nowhere.tfm"),
        (("--initial", "fixed.png"), "fixed.png"),
        (("--initial", "mirror.tfm"), "initial transform"),
        (("--fixed-mask", "long.png"), "320 x 160"),
        (("--moving-mask", "nowhere.png"), "nowhere.png"),
        (("--initial", "identity", "--model", "fundus-sift"), "initial transform"),
        (("--initial", "identity", "--model", "keymorph-fundus", "--transform", "tps",
          "--smoothing", "0,1"), "--initial"),
    ],
)  # fmt: skip
def test_what_cannot_guide_is_one_sentence(eyes, tmp_path, capsys, words, expected):
    assert register(eyes[0], tmp_path / "out", *words) != 0
    error = capsys.readouterr().err
    assert expected in error
    assert error.startswith("retreg: ")
    assert error.strip().count("\n") == 0
