"""Resampling by whole voxels, which copies, equals resampling by interpolation."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from retreg.geometry import Grid
from retreg.image import Image
from retreg.resample import resample
from retreg.threads import in_threads
from retreg.transforms import Affine, Chain

OBLIQUE = np.array([[0.6, -0.8, 0, 5], [0.8, 0.6, 0, -3], [0, 0, 2, 1], [0, 0, 0, 1.0]])


def shifted(i, j, k):
    matrix = np.eye(4)
    matrix[:3, 3] = i, j, k
    return matrix


@pytest.mark.parametrize("fill", [None, 7.0])
@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("shift", [(0, 0, 0), (3, -2, 1), (-20, 0, 0), (50, 50, 50)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_a_shift_by_whole_voxels_is_a_copy(dtype, shift, nearest, fill):
    values = np.random.default_rng(0).integers(10, 90, (2, 6, 9, 24)).astype(dtype)
    moving = Image(values, Grid((24, 9, 6), OBLIQUE))
    grid = Grid((20, 12, 5), OBLIQUE @ shifted(1, 0, 2))
    by = Affine(OBLIQUE @ shifted(*shift) @ np.linalg.inv(OBLIQUE))
    copied = resample(moving, by, grid, nearest, fill)
    interpolated = resample(moving, Chain((by,)), grid, nearest, fill)
    assert copied.array.dtype == dtype
    np.testing.assert_allclose(copied.array, interpolated.array, atol=1e-4)


def test_a_shift_by_part_of_a_voxel_is_none():
    values = np.arange(40, dtype=np.float32).reshape(1, 1, 4, 10)
    image = Image(values, Grid.of_picture(10, 4))
    half = resample(image, Affine(shifted(0.5, 0, 0)), image.grid)
    np.testing.assert_allclose(half.array[..., :9], values[..., :9] + 0.5)


@pytest.mark.parametrize(("told", "is_here"), [("1", True), ("2", False)])
def test_work_stays_in_its_thread_where_a_process_keeps_to_one_core(monkeypatch, told, is_here):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    seen = []
    in_threads(lambda _: seen.append(threading.current_thread()), range(3))
    assert len(seen) == 3
    assert (set(seen) == {threading.current_thread()}) == is_here
