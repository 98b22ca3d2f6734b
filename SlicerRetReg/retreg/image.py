"""Images: voxels and the grid they lie on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retreg.about import SAYS_NOTHING, About
from retreg.errors import GeometryError, InputError
from retreg.geometry import Grid

MAX_CHANNELS = 4


@dataclass(frozen=True, eq=False)
class Image:
    """Voxels on a grid.

    array: (channels, k, j, i), an integer or floating-point type; grey has one channel, colour
    three (red, green, blue). grid: where the voxel centres lie. about: what its file says else.
    counted: (k, j, i) bool, the voxels that count when it is registered and judged (retreg.masks);
    None for all.
    Raises InputError or GeometryError when the two do not belong together.
    """

    array: np.ndarray
    grid: Grid
    about: About = SAYS_NOTHING
    counted: np.ndarray | None = None

    def __post_init__(self) -> None:
        array = np.asarray(self.array)
        if array.ndim != 4 or not 1 <= array.shape[0] <= MAX_CHANNELS:
            raise InputError(
                f"An image array of shape {array.shape} was given; (channels, k, j, i) with 1 to "
                f"{MAX_CHANNELS} channels was expected."
            )
        if array.dtype.kind not in "uif":
            raise InputError(
                f"Voxels of type {array.dtype} are not supported; use integers or floating-point "
                "numbers."
            )
        if array.shape[1:] != self.grid.shape:
            raise GeometryError(
                f"The array has the shape {array.shape[1:]} but the grid {self.grid.shape}."
            )
        if self.counted is not None and self.counted.shape != self.grid.shape:
            raise GeometryError(
                f"The mask has the shape {self.counted.shape} but the grid {self.grid.shape}."
            )
        object.__setattr__(self, "array", array)

    @property
    def is_picture(self) -> bool:
        """True for a single slice, such as a fundus photograph."""
        return self.grid.is_plane

    def grey(self) -> np.ndarray:
        """Mean over the channels as float32 (k, j, i), with NaN and infinity replaced by 0."""
        if self.array.shape[0] == 1:
            mean = self.array[0].astype(np.float32)
        else:
            mean = self.array.mean(axis=0, dtype=np.float32)
        finite = np.isfinite(mean)
        if not finite.all():  # nan_to_num would take ten times as long where there is nothing to do
            mean[~finite] = 0.0
        return mean
