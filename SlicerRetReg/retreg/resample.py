"""Resampling: the moving image on another grid, through a transform."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Transform, as_field

SLAB_VOXELS = 1 << 15  # so many voxels at a time: the temporaries of a slab stay in the cache


def resample(moving: Image, transform: Transform, grid: Grid, nearest: bool = False) -> Image:
    """The moving image on grid: its value at transform(x) for every voxel centre x of grid.

    transform maps the world of grid to the world of moving (LPS mm). Linear interpolation, or
    nearest neighbour for labels; outside the outer voxel edges of moving the value is 0. Type and
    channels are kept. transform is first sampled on a coarse lattice (see as_field), which changes
    affine transforms by rounding only and curved ones by about 0.01 mm.
    """
    field = as_field(transform, grid)
    nodes = moving.grid.index(field.grid.lattice() + field.vectors_mm.reshape(3, -1).T)
    nodes = np.ascontiguousarray(nodes.T).reshape(3, *field.grid.shape)
    over_i, over_j, over_k = (_hat_weights(grid, field.grid, axis) for axis in range(3))
    out = np.zeros((moving.array.shape[0], *grid.shape), moving.array.dtype)
    rows = max(1, SLAB_VOXELS // grid.size[0])

    def fill(k: int, start: int) -> None:
        part = slice(start, start + rows)
        plane = np.tensordot(over_k[k], nodes, (0, 1))
        index = (over_j[part] @ plane @ over_i.T).astype(np.float32)
        out[:, k, part] = _values(moving.array, index, nearest)

    slabs = [(k, start) for k in range(grid.size[2]) for start in range(0, grid.size[1], rows)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, *zip(*slabs, strict=True)))
    return Image(out, grid)


def _hat_weights(grid: Grid, lattice: Grid, axis: int) -> np.ndarray:
    """(voxels, nodes) linear interpolation weights along one axis of an aligned lattice."""
    count = grid.size[axis]
    index = np.zeros((count, 3))
    index[:, axis] = np.arange(count)
    position = lattice.index(grid.world(index))[:, axis]
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(lattice.size[axis])))


def _values(array: np.ndarray, index: np.ndarray, nearest: bool) -> np.ndarray:
    """Values (channels, rows, columns) of array at fractional indices (3, rows, columns)."""
    sizes = array.shape[:0:-1]
    inside = np.ones(index.shape[1:], dtype=bool)
    for axis, size in enumerate(sizes):
        inside &= (index[axis] >= -0.5) & (index[axis] <= size - 0.5)
    strides = (1, sizes[0], sizes[0] * sizes[1])
    flat = array.reshape(array.shape[0], -1)
    if nearest:
        offset = np.zeros(inside.shape, np.int64)
        for axis, size in enumerate(sizes):
            offset += strides[axis] * np.clip(np.rint(index[axis]), 0, size - 1).astype(np.int64)
        return np.where(inside, flat[:, offset], 0).astype(array.dtype)
    total = _linear(flat, sizes, strides, index)
    return _as_type(np.where(inside, total, 0), array.dtype)


def _linear(
    flat: np.ndarray, sizes: tuple[int, ...], strides: tuple[int, ...], index: np.ndarray
) -> np.ndarray:
    """Linear interpolation of (channels, voxels); indices beyond the edge take its value."""
    base = np.zeros(index.shape[1:], np.int32)
    uppers: list[tuple[int, np.ndarray]] = []
    for axis, size in enumerate(sizes):
        if size > 1:
            position = np.clip(index[axis], 0, size - 1)
            low = np.minimum(position.astype(np.int32), size - 2)
            base += strides[axis] * low
            uppers.append((strides[axis], position - low))

    def blended(offset: np.ndarray, level: int) -> np.ndarray:
        if level < 0:
            return flat.take(offset, axis=1).astype(np.float32)
        stride, upper = uppers[level]
        first = blended(offset, level - 1)
        return first + upper * (blended(offset + stride, level - 1) - first)

    return blended(base, len(uppers) - 1)


def _as_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
