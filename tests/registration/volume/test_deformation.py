"""Deformable refinement: known warps of made-up and of real heads are undone, without folds."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from retreg.errors import Cancelled
from retreg.geometry import Grid, apply_matrix
from retreg.image import Image
from retreg.quality import jacobian_determinants
from retreg.resample import resample
from retreg.transforms import Affine, Chain, DisplacementField, Transform, as_field
from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration.model import Stages
from retreg_server.registration.volume.deformation import deform, pair_of, refine
from retreg_server.registration.volume.volume_pair import PreparedVolume

WARP_MM = 8.0


@cache
def a_warped_pair(mirror: int | None = None) -> tuple[Image, Image, Transform, np.ndarray]:
    """T1 fixed, T2 moving, moving world → fixed world, and points in the fixed head.

    mirror: an axis along which the fixed volume is stored backwards.
    """
    heads = make_head_pair(5, spacing_mm=4.0, rotation_deg=0.0, shift_mm=(0, 0, 0), stretch=0.0)
    fixed_from_moving = a_smooth_warp(heads.moving.grid, WARP_MM)
    moving = resample(heads.moving, fixed_from_moving, heads.moving.grid)
    fixed = heads.fixed
    if mirror is not None:
        matrix = np.eye(4)
        matrix[mirror, mirror], matrix[mirror, 3] = -1, fixed.grid.size[mirror] - 1
        grid = Grid(fixed.grid.size, fixed.grid.world_from_index @ matrix)
        fixed = Image(np.flip(fixed.array, 3 - mirror).copy(), grid)
    return fixed, moving, fixed_from_moving, heads.landmarks


def a_smooth_warp(grid: Grid, largest_mm: float) -> DisplacementField:
    points = grid.lattice() - grid.centre
    x, y, z = points.T / 60.0
    vectors = np.stack([np.sin(y + 1) * np.cos(z), np.cos(x) * np.sin(z + 0.5), np.sin(x + y)])
    vectors *= largest_mm / np.linalg.norm(vectors, axis=0).max()
    return DisplacementField(vectors.reshape(3, *grid.shape), grid)


def errors_mm(fixed_to_moving: Transform, fixed_from_moving: Transform, points: np.ndarray):
    return np.linalg.norm(fixed_from_moving(fixed_to_moving(points)) - points, axis=1)


def deformed(fixed: Image, moving: Image, matrix: np.ndarray | None = None, **more):
    matrix = np.eye(4) if matrix is None else matrix
    views = PreparedVolume.of(fixed, "fixed"), PreparedVolume.of(moving, "moving")
    return deform(*views, matrix, np.linalg.inv(matrix), **more)


@cache
def the_result():
    return deformed(*a_warped_pair()[:2])


def test_a_known_warp_between_contrasts_is_undone_in_both_directions():
    _, _, truth, points = a_warped_pair()
    before = errors_mm(Affine.identity(), truth, points).mean()
    after = errors_mm(the_result().forward, truth, points).mean()
    assert before > 4.0
    assert after < 1.7
    back = np.linalg.norm(the_result().backward(points) - truth(points), axis=1).mean()
    assert back < 1.7


def test_nothing_folds_inside_or_outside():
    fixed = a_warped_pair()[0]
    index = np.random.default_rng(1).uniform(-5, np.array(fixed.grid.size) + 5, size=(20000, 3))
    for transform in (the_result().forward, the_result().backward):
        found = jacobian_determinants(transform, fixed.grid.world(index), np.eye(3), 0.01)
        assert found.min() > 0


def test_the_two_directions_are_found_apart_and_nearly_agree():
    points = a_warped_pair()[3]
    there, back = the_result().forward, the_result().backward
    apart = np.linalg.norm(back(there(points)) - points, axis=1)
    assert 0.01 < apart.mean() < 1.5


def test_a_volume_stays_on_itself():
    fixed = a_warped_pair()[0]
    moved = deformed(fixed, fixed).forward(a_warped_pair()[3]) - a_warped_pair()[3]
    assert np.linalg.norm(moved, axis=1).max() < 0.1


@pytest.mark.parametrize("axis", [0, 2])
def test_storing_an_axis_backwards_changes_nothing_in_the_world(axis):
    fixed, moving, _, points = a_warped_pair(axis)
    expected = the_result().forward(points)
    apart = np.linalg.norm(deformed(fixed, moving).forward(points) - expected, axis=1)
    assert apart.mean() < 0.3


def test_moving_both_volumes_in_the_world_moves_the_result_with_them():
    fixed, moving, _, points = a_warped_pair()
    for_fixed, for_moving = np.eye(4), np.eye(4)
    for_fixed[:3, :3] = [[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]]
    for_fixed[:3, 3] = [200, -130, 45]
    for_moving[:3, :3], for_moving[:3, 3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]], [-40, 10, 300]
    placed = [
        Image(image.array, Grid(image.grid.size, world @ image.grid.world_from_index))
        for image, world in ((fixed, for_fixed), (moving, for_moving))
    ]
    matrix = for_moving @ np.linalg.inv(for_fixed)
    found = deformed(*placed, matrix).forward(apply_matrix(for_fixed, points))
    expected = apply_matrix(for_moving, the_result().forward(points))
    assert np.linalg.norm(found - expected, axis=1).mean() < 0.5


def test_the_search_looks_around_a_field_to_start_from():
    fixed, moving, truth, points = a_warped_pair()
    pair = pair_of(PreparedVolume.of(fixed, "fixed"), PreparedVolume.of(moving, "moving"))
    before = the_result().forward.transforms[0]
    found = refine(pair, np.eye(4), before)
    assert errors_mm(found, truth, points).mean() < 1.7
    far = DisplacementField(np.full((3, *fixed.grid.shape), 120.0), fixed.grid)
    assert errors_mm(refine(pair, np.eye(4), far), truth, points).mean() > 5


def test_progress_rises_to_1_and_cancelling_stops_the_work():
    fixed, moving, _, _ = a_warped_pair()
    heard: list[float] = []
    pair = pair_of(PreparedVolume.of(fixed, "fixed"), PreparedVolume.of(moving, "moving"))
    refine(pair, np.eye(4), stages=Stages(lambda _, done: heard.append(done)))
    assert heard == sorted(heard)
    assert heard[-1] == 1.0

    def refuse(_stage: str, done: float) -> None:
        if done > 0.2:
            raise Cancelled("Stopped by the test.")

    with pytest.raises(Cancelled):
        deformed(fixed, moving, stages=Stages(refuse))


def test_the_result_is_an_affine_after_a_coarse_field():
    field, affine = the_result().forward.transforms
    assert isinstance(field, DisplacementField)
    assert isinstance(affine, Affine)
    assert np.prod(field.grid.size) < np.prod(a_warped_pair()[0].grid.size)


def test_on_voxels_the_field_is_exact_in_files_and_folds_nowhere():
    fixed, moving, _, points = a_warped_pair()
    chain = deformed(fixed, moving, grids=(fixed.grid, moving.grid)).forward
    written = as_field(chain, fixed.grid)
    assert np.prod(written.grid.size) < np.prod(fixed.grid.size) / 4
    found = the_result().forward.transforms[0]
    assert written.grid.spacing.max() < 1.01 * found.grid.spacing.min()
    np.testing.assert_allclose(written(points), chain(points), atol=1e-6)
    apart = np.linalg.norm(chain(points) - the_result().forward(points), axis=1)
    assert apart.mean() < 0.3
    inside = fixed.grid.lattice()[::7]
    assert jacobian_determinants(written, inside, np.eye(3), 0.01).min() > 0


def test_the_same_call_gives_the_same_numbers():
    fixed, moving, _, points = a_warped_pair()
    chain = deformed(fixed, moving).forward
    assert isinstance(chain, Chain)
    np.testing.assert_array_equal(chain(points), the_result().forward(points))


def test_out_of_time_each_level_still_takes_a_step(monkeypatch):
    monkeypatch.setattr("retreg_server.registration.volume.deformation.TIME_LIMIT_S", 0.0)
    fixed, moving, truth, points = a_warped_pair()
    pair = pair_of(PreparedVolume.of(fixed, "fixed"), PreparedVolume.of(moving, "moving"))
    heard: list[float] = []
    hasty = refine(pair, np.eye(4), stages=Stages(lambda _, done: heard.append(done)))
    assert len(heard) == 4  # the search, two levels and the end
    assert errors_mm(hasty, truth, points).mean() < 4.0
