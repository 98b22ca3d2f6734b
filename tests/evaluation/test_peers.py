"""The baselines, and how methods are named."""

from __future__ import annotations

import numpy as np
import pytest

from retreg.errors import OptionError, RegistrationError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Affine
from retreg_server.evaluation.elastix import ElastixAffine, _matrix, elastix_is_installed
from retreg_server.evaluation.known_truth import turned_picture
from retreg_server.evaluation.peers import method_by_name
from retreg_server.evaluation.sift import Homography, sift_homography


def test_the_identity_stays_where_it_is():
    image = Image(np.ones((1, 1, 4, 4)), Grid.of_picture(4, 4))
    answer = method_by_name("identity")(image, image)
    assert answer.transform(np.ones((1, 3))).tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("name", ["nonsense", "identity:affine", "nonsense:affine"])
def test_unknown_methods_are_one_sentence_that_names_the_known_ones(name):
    with pytest.raises(OptionError, match=r"auto-fundus.*sift-homography"):
        method_by_name(name)


def test_a_homography_divides_by_its_last_row():
    mapped = Homography(np.array([[1.0, 0, 2], [0, 1, 0], [0.5, 0, 1]]))(np.array([[2.0, 4, 0]]))
    assert mapped[0] == pytest.approx([2, 2, 0])


def a_textured_picture() -> Image:
    random = np.random.default_rng(3)
    grid = Grid.of_picture(300, 300)
    values = np.full((300, 300), 90.0)
    y, x = np.mgrid[:300, :300]
    for _ in range(150):
        cx, cy, width = *random.uniform(40, 260, 2), random.uniform(2, 6)
        values += random.uniform(-60, 60) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / width**2)
    return Image(np.clip(values, 20, 255).astype(np.uint8)[None, None], grid)


def test_sift_finds_a_known_turn():
    original = a_textured_picture()
    moving, original_from_moving = turned_picture(original, 40, 1.1)
    points = np.array([[100.0, 100, 0], [200, 120, 0], [150, 220, 0]])
    found = original_from_moving(sift_homography(original, moving)(points))
    assert found == pytest.approx(points, abs=1.0)


def test_sift_finds_nothing_in_black():
    black = Image(np.zeros((1, 1, 60, 60), np.uint8), Grid.of_picture(60, 60))
    with pytest.raises(RegistrationError, match="no features"):
        sift_homography(black, black)


def test_elastix_parameters_turn_about_their_centre():
    numbers = np.array([0.0, -1, 0, 1, 0, 0, 0, 0, 1, 5, 6, 7])
    mapped = Affine(_matrix(numbers, np.array([1.0, 2, 3])))(np.array([[2.0, 2, 3]]))
    assert mapped[0] == pytest.approx([1 + 5, 3 + 6, 3 + 7])


@pytest.mark.skipif(not elastix_is_installed(), reason="itk-elastix is not installed")
def test_elastix_finds_a_shift():
    grid = Grid((32, 32, 32), np.diag([2.0, 2, 2, 1]))
    points = grid.lattice()
    values = np.exp(-(((points - (28, 32, 34)) / (9, 14, 18)) ** 2).sum(axis=1)).reshape(grid.shape)
    moved = np.diag([2.0, 2, 2, 1])
    moved[:3, 3] = (6, -4, 3)
    fixed = Image(100 * values[None], grid)
    moving = Image(100 * values[None], Grid((32, 32, 32), moved))
    transform, cost = ElastixAffine()(fixed, moving)
    centre = np.array([[28.0, 32, 34]])
    assert transform(centre)[0] == pytest.approx([34, 28, 37], abs=1.0)
    assert cost.seconds > 0
