"""The grid that holds several images, in the pixels of one of them: bounded before it is filled."""

from __future__ import annotations

import numpy as np

from retreg.errors import InputError
from retreg.files.limits import MAX_PICTURE_PIXELS
from retreg.geometry import MAX_AXIS, Grid

_ROUNDING = 1e-9


def union_grid(reference: Grid, world: np.ndarray, longest: int | None = None) -> Grid:
    """The pixels of a picture continued until they hold all points (n, 3) LPS mm.

    longest: pixels of the longer side at most; the pixels are made larger for it. Raises InputError
    where there would be more than MAX_PICTURE_PIXELS.
    """
    index = reference.index(world)[:, :2]
    low, high = np.floor(index.min(axis=0)), np.ceil(index.max(axis=0))
    size = high - low + 1
    step = max(1.0, float(size.max()) / longest) if longest else 1.0
    columns, rows = np.ceil(size / step - _ROUNDING)
    if columns * rows > MAX_PICTURE_PIXELS or max(columns, rows) > MAX_AXIS:
        raise InputError(
            f"All images together would need a canvas of {columns:.0f} x {rows:.0f} pixels; at "
            f"most {MAX_PICTURE_PIXELS // 1_000_000} million are accepted, so ask for less with "
            "--longest, or leave out what lies far away."
        )
    index_from_pixel = np.diag([step, step, 1.0, 1.0])
    index_from_pixel[:2, 3] = low + (step - 1) / 2
    return Grid((int(columns), int(rows), 1), reference.world_from_index @ index_from_pixel)
