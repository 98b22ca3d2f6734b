"""Resampling: the moving image on another grid, through a transform."""

from __future__ import annotations

from itertools import product

import numpy as np

from retreg.background import fill_values
from retreg.geometry import Grid
from retreg.image import Image
from retreg.splines.on_grid import PLANES
from retreg.threads import in_threads
from retreg.transforms import Affine, Chain, DisplacementField, Transform
from retreg.voxel_displacements import voxel_map

BLOCK_VOXELS = 1 << 19  # so many voxels are mapped at a time
_NOTHING_MM = 1e-9
_NOTHING_VOXELS = 1e-6
SLAB_VOXELS = 1 << 15  # and so many interpolated: the temporaries stay in the cache


def resample(
    moving: Image,
    transform: Transform,
    grid: Grid,
    nearest: bool = False,
    fill: float | None = None,
    tolerance_mm: float | None = None,
) -> Image:
    """The moving image on grid: its value at transform(x) for every voxel centre x of grid.

    transform maps the world of grid to the world of moving (LPS mm). Linear interpolation, or
    nearest neighbour for labels (the next one up in the middle of two, as in ITK); outside the
    outer voxel edges of moving the value is fill, or when that is None the background of moving
    (retreg.background; 0 for labels). Type and channels are kept. transform is first sampled on a
    coarse lattice (see voxel_map), which changes affine transforms by rounding only and curved ones
    by about 0.02 mm, or by tolerance_mm; a local correction is sampled in its boxes only. Raises
    OptionError for a fill that the type cannot hold.
    """
    boxes, rest = _local_boxes(transform, grid)
    if not boxes:
        return _resampled(moving, transform, grid, nearest, fill, tolerance_mm)
    whole = _resampled(moving, rest, grid, nearest, fill, tolerance_mm)
    for box, place in boxes:
        exact = DisplacementField.sampled(transform, box)
        inside = _resampled(moving, exact, box, nearest, fill, tolerance_mm)
        whole.array[(slice(None), *place)] = inside.array
    return whole


def _resampled(
    moving: Image,
    transform: Transform,
    grid: Grid,
    nearest: bool,
    fill: float | None,
    tolerance_mm: float | None,
) -> Image:
    """resample without a look for local corrections."""
    shift = _whole_shift(transform, grid, moving.grid)
    if shift is not None:
        return _shifted(moving, shift, grid, 0.0 if nearest and fill is None else fill)
    outside = fill_values(moving, 0.0 if nearest and fill is None else fill)[:, None, None]
    positions = voxel_map(transform, grid, moving.grid.index_from_world, tolerance_mm)
    out = np.zeros((moving.array.shape[0], *grid.shape), moving.array.dtype)
    rows = max(1, BLOCK_VOXELS // (PLANES * grid.size[0]))
    part = max(1, SLAB_VOXELS // grid.size[0])

    def resample_block(corner: tuple[int, int]) -> None:
        start, top = corner
        index = positions.block(slice(start, start + PLANES), slice(top, top + rows))
        for k, plane in enumerate(index.swapaxes(0, 1), start):
            for row in range(0, plane.shape[1], part):
                slab = plane[:, row : row + part].astype(np.float32)
                first = top + row
                out[:, k, first : first + slab.shape[1]] = _values(
                    moving.array, slab, nearest, outside
                )

    corners = product(range(0, grid.size[2], PLANES), range(0, grid.size[1], rows))
    in_threads(resample_block, corners)
    return Image(out, grid)


def _whole_shift(transform: Transform, grid: Grid, moving: Grid) -> np.ndarray | None:
    """(3,) whole voxels i, j, k by which the indices of moving are larger, if that is all."""
    if not isinstance(transform, Affine):
        return None
    index_from_index = (
        moving.index_from_world @ transform.moving_from_fixed @ grid.world_from_index
    )
    shift = np.rint(index_from_index[:3, 3])
    whole = np.eye(4)
    whole[:3, 3] = shift
    off = np.abs(index_from_index - whole)[:3] @ (*grid.size, 1)
    return shift.astype(int) if off.max() < _NOTHING_VOXELS else None


def _shifted(moving: Image, shift: np.ndarray, grid: Grid, fill: float | None) -> Image:
    """The part of moving that lies on grid, and fill around it."""
    values = np.asarray(fill_values(moving, fill))[:, None, None, None]
    out = np.empty((len(moving.array), *grid.shape), moving.array.dtype)
    out[:] = _as_type(np.broadcast_to(values, out.shape[:1] + (1, 1, 1)), out.dtype)
    low = np.clip(-shift, 0, grid.size)[::-1]
    high = np.clip(np.array(moving.grid.size) - shift, low[::-1], grid.size)[::-1]
    here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    there = tuple(
        slice(a + s, b + s) for a, b, s in zip(low, high, shift[::-1], strict=True)
    )
    if (low < high).all():
        out[(slice(None), *here)] = moving.array[(slice(None), *there)]
    return Image(out, grid)


def _local_boxes(
    transform: Transform, grid: Grid
) -> tuple[list[tuple[Grid, tuple[slice, slice, slice]]], Transform]:
    """Where the small fields reach with which a corrected transform begins, and what follows them.

    Each box is a part of grid, with its place (k, j, i) there. Nothing where the fields are not 0
    at their borders, or together not much smaller than grid.
    """
    parts = transform.transforms if isinstance(transform, Chain) else (transform,)
    count = 0
    while count + 1 < len(parts) and _ends_in_nothing(parts[count]):
        count += 1
    fields = [part for part in parts[:count] if isinstance(part, DisplacementField)]
    boxes = []
    for corners in (grid.index(field.grid.corners()) for field in fields):
        low = np.clip(np.floor(corners.min(axis=0)), 0, None).astype(int)
        high = np.clip(np.ceil(corners.max(axis=0)) + 1, None, grid.size).astype(int)
        if (low < high).all():
            shift = np.eye(4)
            shift[:3, 3] = low
            i, j, k = (int(n) for n in high - low)
            box = Grid((i, j, k), grid.world_from_index @ shift)
            columns, rows, planes = (slice(a, b) for a, b in zip(low, high, strict=True))
            boxes.append((box, (planes, rows, columns)))
    if not fields or 2 * sum(np.prod(box.size) for box, _ in boxes) > np.prod(grid.size):
        return [], transform
    return boxes, parts[count] if count + 1 == len(parts) else Chain(parts[count:])


def _ends_in_nothing(part: Transform) -> bool:
    """Whether a transform is a field that is 0 at its borders."""
    if not isinstance(part, DisplacementField):
        return False
    vectors, sizes = part.vectors_mm, part.vectors_mm.shape
    edges = [vectors.take([0, -1], axis) for axis in (1, 2, 3) if sizes[axis] > 1]
    return bool(edges) and all(np.abs(edge).max() < _NOTHING_MM for edge in edges)


def _values(
    array: np.ndarray, index: np.ndarray, nearest: bool, outside: np.ndarray
) -> np.ndarray:
    """Values (channels, rows, columns) of array at fractional indices (3, rows, columns)."""
    sizes = array.shape[:0:-1]
    inside = np.ones(index.shape[1:], dtype=bool)
    for axis, size in enumerate(sizes):
        inside &= (index[axis] >= -0.5) & (index[axis] < size - 0.5)
    strides = (1, sizes[0], sizes[0] * sizes[1])
    flat = array.reshape(array.shape[0], -1)
    if nearest:
        offset = np.zeros(inside.shape, np.int64)
        for axis, size in enumerate(sizes):
            nearest_one = np.clip(np.floor(index[axis] + 0.5), 0, size - 1)
            offset += strides[axis] * nearest_one.astype(np.int64)
        return np.where(inside, flat[:, offset], outside.astype(array.dtype))
    total = _linear(flat, sizes, strides, index)
    return _as_type(np.where(inside, total, outside), array.dtype)


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
