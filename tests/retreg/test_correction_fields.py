"""A local correction as fields: the same map, in pieces, with nothing at their borders."""

from __future__ import annotations

import numpy as np
import pytest

from retreg import Affine, Chain, DisplacementField, Grid, Image, resample
from retreg.correction_fields import MOST_NODES, correction_fields
from retreg.local_correction import unfolded_correction

PICTURE = Grid.of_picture(900, 700)
HEAD = Grid((80, 90, 70), np.diag([-2.0, -2.0, 2.5, 1]))
TURN = [[0.6, 0, -0.8, 5], [0, 1.0, 0, 7], [0.8, 0, 0.6, -9], [0, 0, 0, 1]]
OBLIQUE = Grid((200, 150, 1), np.array(TURN))


def correction_on(grid: Grid, count: int, reach: float):
    rng = np.random.default_rng(count)
    index = rng.uniform(0.2, 0.8, (count, 3)) * (np.array(grid.size) - 1)
    shifts = rng.normal(0, 3, (count, 3)) @ np.diag([1, 1, not grid.is_plane]) @ grid.direction.T
    return unfolded_correction(grid.world(index), shifts, reach)


@pytest.mark.parametrize("grid", [PICTURE, HEAD, OBLIQUE], ids=["picture", "head", "oblique"])
@pytest.mark.parametrize(("count", "reach"), [(1, 30.0), (5, 25.0), (6, 90.0)])
def test_the_fields_one_after_the_other_are_the_correction(grid, count, reach) -> None:
    correction = correction_on(grid, count, reach)
    fields = correction_fields(correction, grid, 0.02)
    probes = np.vstack([grid.lattice(9), correction.points])
    np.testing.assert_allclose(Chain(fields)(probes), correction(probes), atol=0.08)
    for field in fields:
        for axis in range(1, 4):
            if field.vectors_mm.shape[axis] > 1:
                edges = field.vectors_mm.take([0, -1], axis=axis)
                np.testing.assert_allclose(edges, 0, atol=1e-12)


def test_points_that_are_far_apart_have_fields_of_their_own() -> None:
    points = np.array([[100.0, 100, 0], [130, 100, 0], [600, 500, 0]])
    fields = correction_fields(unfolded_correction(points, points / 100, 50.0), PICTURE, 0.02)
    assert len(fields) == 2
    assert sum(field.vectors_mm.size for field in fields) < 0.1 * 3 * 900 * 700


def test_no_field_is_larger_than_can_be_drawn() -> None:
    correction = correction_on(HEAD, 8, 100.0)
    for field in correction_fields(correction, HEAD, 1e-4):
        assert field.vectors_mm.size <= 3 * 1.2 * MOST_NODES


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("grid", [PICTURE, HEAD], ids=["picture", "head"])
def test_a_corrected_image_is_sampled_anew_in_the_boxes_of_the_correction_only(
    grid, nearest, monkeypatch
) -> None:
    correction = correction_on(grid, 2, 0.08 * float((grid.spacing * grid.size).max()))
    noise = np.random.default_rng(0).random((1, *grid.shape))
    moving = Image((250 * noise).astype(np.uint8), grid)
    turn = Affine(np.diag([1.02, 0.97, 1, 1]))
    transform = Chain((*correction_fields(correction, grid, 0.02), turn))
    exact = resample(moving, DisplacementField.sampled(transform, grid), grid, nearest).array
    sampled = []
    real = DisplacementField.sampled.__func__

    def watched(cls, of, where):
        sampled.append(int(np.prod(where.size)))
        return real(cls, of, where)

    monkeypatch.setattr(DisplacementField, "sampled", classmethod(watched))
    found = resample(moving, transform, grid, nearest).array
    assert 0 < sum(sampled) < 0.5 * np.prod(grid.size)
    off = np.abs(found.astype(float) - exact)
    assert np.mean(off > 1) < (2e-3 if nearest else 1e-6)
    plain = resample(moving, turn, grid, nearest).array
    assert (found != plain).any()
