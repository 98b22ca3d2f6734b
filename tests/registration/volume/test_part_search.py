"""Parts of made-up heads are found in the whole, wherever their middle lies."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from retreg.geometry import Grid, apply_matrix
from retreg.image import Image
from retreg_server.phantoms.head import make_head_pair
from retreg_server.phantoms.pair import PhantomPair
from retreg_server.registration.volume.part_search import part_starts
from retreg_server.registration.volume.volume_pair import PreparedVolume, VolumePair


@cache
def a_turned_head() -> PhantomPair:
    return make_head_pair(4, spacing_mm=4.0, rotation_deg=30, stretch=0.0)


def part_of(image: Image, axis: int, first: float, last: float) -> Image:
    """The slices from one share of the length of the axis (i, j, k) to another."""
    size = image.grid.size[axis]
    start, stop = round(first * size), round(last * size)
    array = np.take(image.array, range(start, stop), axis=3 - axis)
    corner = np.eye(4)
    corner[axis, 3] = start
    i, j, k = (stop - start if n == axis else image.grid.size[n] for n in range(3))
    return Image(array, Grid((i, j, k), image.grid.world_from_index @ corner))


@pytest.mark.parametrize(("axis", "first", "last"), [(1, 0.0, 0.5), (0, 0.5, 1.0)])
def test_half_a_head_is_put_where_it_belongs(axis, first, last):
    pair = a_turned_head()
    half = part_of(pair.fixed, axis, first, last)
    prepared = PreparedVolume.of(half, "fixed"), PreparedVolume.of(pair.moving, "moving")
    found = part_starts(VolumePair.of(*prepared))
    points = pair.landmarks[half.grid.contains(pair.landmarks)]
    missed = [apply_matrix(start, points) - pair.truth(points) for start in found]
    assert np.linalg.norm(missed[0], axis=1).mean() < 6.0
