"""The baselines, and how methods are named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from retreg.errors import OptionError, RegistrationError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Affine, Chain, DisplacementField
from retreg_server.evaluation import global_start
from retreg_server.evaluation.ants_syn import ants_is_installed, ants_syn
from retreg_server.evaluation.cost import Cost
from retreg_server.evaluation.elastix import (
    _matrix,
    elastix_affine,
    elastix_bspline,
    elastix_is_installed,
)
from retreg_server.evaluation.global_start import after_affine
from retreg_server.evaluation.known_truth import turned_picture
from retreg_server.evaluation.peer_worker import PeerWorker
from retreg_server.evaluation.peers import INSTALLED, is_missing, method_by_name
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


def littering(fixed: Image, _moving: Image) -> np.ndarray:
    Path("deformationField.nii").write_bytes(fixed.array.tobytes())
    return np.zeros((3, 4, 4, 4))


def ramp(fixed: Image, moving: Image) -> np.ndarray:
    """A stand-in for other people's registration; it ends its process for volumes of zeros."""
    if not fixed.array.any():
        os._exit(1)
    if fixed.grid.size != moving.grid.size:
        raise ValueError("not the same grid")
    return np.full((3, *fixed.grid.shape), 2.0)


def ones(size: int, value: float = 1.0) -> Image:
    return Image(np.full((1, size, size, size), value), Grid((size, size, size), np.eye(4)))


def test_a_peer_answers_from_a_process_of_its_own_and_survives_errors_and_crashes():
    worker = PeerWorker("The ramp", ramp)
    vectors, cost = worker(ones(4), ones(4))
    assert vectors.shape == (3, 4, 4, 4)
    assert cost.seconds >= 0
    with pytest.raises(RegistrationError, match=r"The ramp found no transform \(ValueError\)"):
        worker(ones(4), ones(5))
    with pytest.raises(RegistrationError, match="The ramp crashed"):
        worker(ones(4, 0.0), ones(4))
    assert worker(ones(4), ones(4))[0].min() == 2.0


def test_files_that_a_peer_leaves_behind_do_not_land_in_the_folder_of_the_user(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    PeerWorker("The litterer", littering)(ones(4), ones(4))
    assert list(tmp_path.iterdir()) == []


def test_a_deformable_peer_sees_the_volume_that_the_affine_has_moved(monkeypatch):
    shift = np.eye(4)
    shift[:3, 3] = [0, 0, 3]
    monkeypatch.setattr(global_start, "_affine", lambda _fixed, _moving: Affine(shift))
    seen = []

    def worker(fixed: Image, moving: Image):
        seen.append(moving.array[0, :, 0, 0])
        return np.full((3, *fixed.grid.shape), 1.0), Cost(2.0, 3.0, 5.0)

    array = np.broadcast_to(np.arange(8.0)[:, None, None], (8, 8, 8))[None].copy()
    grid = Grid((8, 8, 8), np.eye(4))
    transform, cost = after_affine(worker, ones(8), Image(array, grid))
    assert seen[0][:5] == pytest.approx([3, 4, 5, 6, 7])
    assert isinstance(transform, Chain)
    assert transform(np.zeros((1, 3)))[0] == pytest.approx([1, 1, 4])
    assert cost.seconds >= 2.0
    assert cost.cpu_seconds >= 3.0


def test_missing_peers_are_named_with_the_remedy(monkeypatch):
    for name, (package, _) in INSTALLED.items():
        monkeypatch.setitem(INSTALLED, name, (package, lambda: False))
        assert package in is_missing(name)
        assert "extra 'peers'" in is_missing(name)
    assert is_missing("identity") == ""


def a_ball(centre: tuple[float, float, float]) -> Image:
    """An ellipsoid on a grid whose axes are turned in the world."""
    matrix = np.diag([2.0, 2, 2, 1])
    matrix[:3, :3] = [[0, -2, 0], [2, 0, 0], [0, 0, 2]]
    matrix[:3, 3] = (5, -7, 3)
    grid = Grid((32, 30, 34), matrix)
    offset = (grid.lattice() - grid.centre - centre) / (9, 14, 18)
    return Image(100 * np.exp(-(offset**2).sum(axis=1)).reshape(1, *grid.shape), grid)


@pytest.mark.parametrize(
    "register",
    [
        pytest.param(elastix_bspline, marks=pytest.mark.skipif(
            not elastix_is_installed(), reason="itk-elastix is not installed")),
        pytest.param(ants_syn, marks=pytest.mark.skipif(
            not ants_is_installed(), reason="antspyx is not installed")),
    ],
)
def test_the_fields_of_peers_point_from_fixed_to_moving_in_the_world(register):
    fixed, moving = a_ball((0, 0, 0)), a_ball((3, -2, 1))
    vectors, _ = PeerWorker("The peer", register)(fixed, moving)
    centre = fixed.grid.centre[None]
    found = DisplacementField(vectors, fixed.grid)(centre) - centre
    assert found[0] == pytest.approx([3, -2, 1], abs=1.0)


@pytest.mark.skipif(not elastix_is_installed(), reason="itk-elastix is not installed")
def test_elastix_finds_a_shift():
    grid = Grid((32, 32, 32), np.diag([2.0, 2, 2, 1]))
    points = grid.lattice()
    values = np.exp(-(((points - (28, 32, 34)) / (9, 14, 18)) ** 2).sum(axis=1)).reshape(grid.shape)
    moved = np.diag([2.0, 2, 2, 1])
    moved[:3, 3] = (6, -4, 3)
    fixed = Image(100 * values[None], grid)
    moving = Image(100 * values[None], Grid((32, 32, 32), moved))
    matrix, cost = PeerWorker("elastix", elastix_affine)(fixed, moving)
    centre = np.array([[28.0, 32, 34]])
    assert Affine(matrix)(centre)[0] == pytest.approx([34, 28, 37], abs=1.0)
    assert cost.seconds > 0
