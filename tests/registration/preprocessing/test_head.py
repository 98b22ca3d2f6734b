"""What a volume is taken to show: a head, or any other anatomy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retreg.about import About
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration.preprocessing.head import shows_head
from retreg_server.registration.registry import default_model
from retreg_server.registration.subject import subject_of


def volume(values: np.ndarray, spacing_mm: float) -> Image:
    grid = Grid(values.shape[::-1], np.diag([spacing_mm] * 3 + [1.0]))
    return Image(values.astype(np.float32)[None], grid)


def a_head(spacing_mm: float = 5.0) -> Image:
    return make_head_pair(3, spacing_mm=spacing_mm, rotation_deg=0).fixed


def a_leg() -> Image:
    """A cylinder through both ends of the image, with a bone."""
    _, j, i = np.indices((40, 36, 36))
    away = np.hypot(j - 18, i - 18)
    return volume(500.0 * (away < 13) - 400.0 * (away < 4), 4.0)


def a_block() -> Image:
    """Textured tissue up to every face, as a small field of view in a trunk shows."""
    coarse = np.random.default_rng(4).uniform(100, 900, (6, 6, 6))
    return volume(np.kron(coarse, np.ones((6, 6, 6))), 4.0)


def in_other_units(image: Image, factor: float) -> Image:
    scale = np.diag([factor] * 3 + [1.0])
    return replace(image, grid=Grid(image.grid.size, scale @ image.grid.world_from_index))


@pytest.mark.parametrize("stripped", [False, True])
@pytest.mark.parametrize("contrast", ["t1", "flair"])
def test_a_head_and_a_bare_brain_are_heads(stripped, contrast):
    pair = make_head_pair(3, spacing_mm=5.0, rotation_deg=0, fixed=contrast, stripped=stripped)
    assert shows_head(pair.fixed)


@pytest.mark.parametrize("image", [a_leg(), a_block(), in_other_units(a_head(), 0.1)])
def test_limbs_blocks_of_tissue_and_what_is_as_small_as_an_animal_are_no_heads(image):
    assert not shows_head(image)
    assert subject_of(image).name == "anatomy"
    assert default_model(image, image) == "auto-volume"


@pytest.mark.parametrize(("part", "is_head"), [("BRAIN", True), ("Head", True), ("KNEE", False)])
def test_what_the_file_says_decides(part, is_head):
    for image in (a_head(), a_leg()):
        assert shows_head(replace(image, about=About(body_part=part))) is is_head


def test_one_head_of_two_volumes_is_enough():
    assert default_model(a_block(), a_head()) == "auto-brain"
    assert default_model(a_head(), a_block()) == "auto-brain"
