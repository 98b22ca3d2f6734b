"""Fields on all voxels, exactly, against the transforms evaluated at every point."""

from __future__ import annotations

import numpy as np
import pytest

from retreg import Affine, Chain, DisplacementField, Grid, Image, ThinPlateSpline, resample
from retreg.composed_field import FieldLattice, composed_field
from retreg.transforms import Transform
from retreg.voxel_displacements import displacements, voxel_map

MATRIX = np.array([[1.1, 0.2, 0, 5], [-0.1, 0.9, 0.1, -4], [0, 0.05, 1, 3], [0, 0, 0, 1.0]])


def turned(seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]


def placed(direction: np.ndarray, spacing: object, origin: object) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = direction * np.asarray(spacing)
    matrix[:3, 3] = origin
    return matrix


GRID = Grid((24, 20, 12), placed(turned(1), (1.0, 1.2, 3.0), (10, -20, 30)))


def field_on(size: tuple[int, int, int], to_index: np.ndarray) -> DisplacementField:
    """Noise on a lattice that is placed in the index space of GRID."""
    grid = Grid(size, GRID.world_from_index @ to_index)
    return DisplacementField(np.random.default_rng(0).normal(0, 1, (3, *grid.shape)), grid)


def permuted() -> np.ndarray:
    """Axes k, i, j of the lattice along i, j, k of the grid, one of them backwards."""
    matrix = np.zeros((4, 4))
    matrix[0, 2], matrix[1, 0], matrix[2, 1], matrix[3, 3] = 3.0, -2.5, 2.0, 1
    matrix[:3, 3] = (-2, 21, -1)
    return matrix


PARALLEL = {
    "coarser": field_on((9, 8, 5), placed(np.eye(3), (3, 3, 3), (-1, -1, -1))),
    "finer": field_on((60, 50, 30), placed(np.eye(3), (0.5, 0.5, 0.5), (-2.3, -2.2, -1.1))),
    "too small": field_on((5, 5, 5), placed(np.eye(3), (3, 3, 2), (5, 4, 2))),
    "permuted": field_on((10, 8, 10), permuted()),
}
OBLIQUE = field_on((9, 8, 8), placed(turned(3), (4, 4, 4), (-3, -3, -3)))


def inside(count: int = 500) -> np.ndarray:
    share = np.random.default_rng(1).uniform(-0.5, 0.5, (count, 3)) + 0.5
    return GRID.world(share * np.array(GRID.size) - 0.5)


@pytest.mark.parametrize("name", [*PARALLEL, "oblique"])
@pytest.mark.parametrize("form", ["alone", "affine after", "affine before", "both, nested"])
def test_a_chain_around_a_field_is_one_field(name: str, form: str) -> None:
    field, affine = PARALLEL.get(name, OBLIQUE), Affine(MATRIX)
    chain: Transform = {
        "alone": field,
        "affine after": Chain((field, affine)),
        "affine before": Chain((affine, field)),
        "both, nested": Chain((Chain((affine, affine)), Chain((field, affine)))),
    }[form]
    found = composed_field(chain, GRID)
    assert found is not None
    np.testing.assert_allclose(found(inside()), chain(inside()), rtol=0, atol=1e-9)


@pytest.mark.parametrize("after", [None, Affine(MATRIX)], ids=["field", "and affine"])
@pytest.mark.parametrize("name", PARALLEL)
def test_every_voxel_gets_what_the_transform_says(name: str, after: Affine | None) -> None:
    transform = PARALLEL[name] if after is None else Chain((PARALLEL[name], after))
    voxels = GRID.lattice()
    expected = (transform(voxels) - voxels).T.reshape(3, *GRID.shape)
    assert FieldLattice.of(transform, GRID, None) is not None
    np.testing.assert_allclose(displacements(transform, GRID), expected, atol=2e-5)
    frame = np.linalg.inv(MATRIX)
    part = voxel_map(transform, GRID, frame).block(slice(2, 5), slice(3, 9))
    moved = Affine(frame)(transform(voxels)).T.reshape(3, *GRID.shape)
    np.testing.assert_allclose(part, moved[:, 2:5, 3:9], atol=5e-5)


def test_resampling_through_a_field_is_exact() -> None:
    field = PARALLEL["coarser"]
    ramp = np.arange(GRID.size[0] * GRID.size[1] * GRID.size[2], dtype=np.float64)
    image = Image(ramp.reshape(1, *GRID.shape), GRID)
    found = resample(image, Chain((field, Affine.identity())), GRID).array[0]
    index = GRID.index(field(GRID.lattice()))
    used = np.all((index >= 0) & (index <= np.array(GRID.size) - 1), axis=1)
    expected = index @ (1, GRID.size[0], GRID.size[0] * GRID.size[1])
    assert used.mean() > 0.5
    np.testing.assert_allclose(found.ravel()[used], expected[used], rtol=1e-5, atol=0.05)


def test_a_picture_stays_in_its_plane() -> None:
    grid = Grid.of_picture(40, 30)
    lattice = grid.coarsened(4)
    vectors = np.random.default_rng(0).normal(0, 1, (3, *lattice.shape))
    vectors[2] = 0
    field = DisplacementField(vectors, lattice)
    matrix = np.eye(4)
    matrix[:2, :2], matrix[:2, 3] = [[0.9, 0.2], [-0.2, 1.1]], (4, 5)
    chain = Chain((field, Affine(matrix)))
    voxels = grid.lattice()
    expected = (chain(voxels) - voxels).T.reshape(3, *grid.shape)
    np.testing.assert_allclose(displacements(chain, grid), expected, atol=1e-5)
    found = composed_field(chain, grid)
    assert found is not None
    np.testing.assert_allclose(found(voxels), chain(voxels), atol=1e-9)


def test_other_transforms_are_left_to_sampling() -> None:
    points = inside(20)
    spline = ThinPlateSpline(points, points + np.random.default_rng(2).normal(0, 1, points.shape))
    slab = DisplacementField(
        np.zeros((3, 1, 8, 9)), Grid((9, 8, 1), GRID.world_from_index @ np.diag([3.0, 3, 3, 1]))
    )
    field = PARALLEL["coarser"]
    tiny = field_on((9, 9, 9), placed(np.eye(3), (0.1, 0.1, 0.1), (3, 3, 3)))
    chains = Chain((field, field)), Chain((spline, field))
    for transform in (spline, Affine(MATRIX), *chains, slab, tiny):
        assert composed_field(transform, GRID) is None
    assert FieldLattice.of(OBLIQUE, GRID, None) is None
    voxels = GRID.lattice()
    expected = (OBLIQUE(voxels) - voxels).T.reshape(3, *GRID.shape)
    np.testing.assert_allclose(displacements(OBLIQUE, GRID), expected, atol=0.6)
