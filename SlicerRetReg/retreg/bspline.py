"""The free-form deformation of ITK and elastix: displacements by B-splines on a lattice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retreg.errors import InputError
from retreg.geometry import Grid

_ORDERS = (1, 2, 3)
_AT_THE_EDGE = 1e-9  # of a node


@dataclass(frozen=True, eq=False)
class BSpline:
    """moving = fixed + sum over nodes of coefficient · B-spline(fixed - node).

    coefficients_mm: (3, k, j, i) LPS mm on grid. order: of the spline, 3 is cubic. Where the spline
    is not supported by all its nodes, points stay where they are, as in ITK's BSplineTransform
    (Rueckert et al. 1999). Raises InputError for another order or shape.
    """

    coefficients_mm: np.ndarray
    grid: Grid
    order: int = 3

    def __post_init__(self) -> None:
        if self.order not in _ORDERS:
            raise InputError(f"A B-spline of order {self.order} was given; 1, 2 or 3 is supported.")
        if self.coefficients_mm.shape != (3, *self.grid.shape):
            raise InputError(
                f"The coefficients have the shape {self.coefficients_mm.shape}; "
                f"{(3, *self.grid.shape)} was expected."
            )

    def __call__(self, points: np.ndarray) -> np.ndarray:
        from scipy.ndimage import map_coordinates

        points = np.asarray(points, dtype=np.float64)
        index = self.grid.index(points)
        used = np.array(self.grid.size) > 1  # the plane of a picture has one node across
        margin = (self.order - 1) / 2
        last = np.array(self.grid.size) - 1 - margin
        low, high = index >= margin - _AT_THE_EDGE, index <= last + _AT_THE_EDGE
        inside = ((low & high) | ~used).all(axis=1)
        moved = points.copy()
        at = index[inside][:, used].T[::-1]
        for axis, channel in enumerate(self.coefficients_mm):
            nodes = channel.reshape([n for n in channel.shape if n > 1])
            moved[inside, axis] += map_coordinates(
                nodes, at, order=self.order, prefilter=False, mode="nearest"
            )
        return moved
