"""Which lattice carries a thin-plate spline cheaply enough within a given error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from retreg.geometry import Grid
from retreg.splines.separable_interpolation import MARGIN, spline_lattice_grid
from retreg.splines.softened_kernels import Softened
from retreg.splines.thin_plate import Spline, squared_distances

STEPS = (10, 8, 7, 6, 5, 4, 3, 2)
RADII = (2.5, 3.0, 3.5, 4.0, 5.0, 6.0)  # of the peaks that are taken off, in steps
# A quintic spline through nodes at distance h differs by at most PEANO h^6 max|f^(6)| from the
# function, and by at most LEBESGUE times the largest node value from zero, MARGIN nodes or more
# away from its ends: both from the Peano kernel of lattice.spline_weights. Without ends they would
# be 61 / 46080 (Tikhomirov; Schoenberg 1973, Cardinal Spline Interpolation) and 1.82.
PEANO, LEBESGUE = 0.0017, 1.82
NODE_COST, PEAK_COST = 1.5, 5.0  # nanoseconds per control point and node, or voxel within reach
MAX_BLOCKS, BATCH = 20_000, 1000


@dataclass(frozen=True, eq=False)
class Plan:
    """What to interpolate from, and how far that is from exact at most.

    steps: (3,) voxels between nodes. radius_mm: within which the peaks are taken off, 0 for none.
    """

    steps: np.ndarray
    radius_mm: float
    bound_mm: float


def plan_lattice(spline: Spline, grid: Grid, tolerance_mm: float) -> Plan:
    """The cheapest plan whose error bound is at most tolerance_mm; every voxel if there is none."""
    exact = Plan(np.ones(3, int), 0.0, 0.0)
    most = NODE_COST * np.prod(grid.size, dtype=float)
    strengths = np.linalg.norm(spline.coefficients, axis=1)
    between = _distances(spline.centres, spline.centres)
    for cost, steps, radius in sorted(_choices(grid), key=lambda choice: choice[0]):
        if cost >= most:
            break
        softened = Softened(spline.kernel, radius)
        factor = _error_per_derivative(steps * grid.spacing, steps > 1)
        if factor * (softened.sixth_derivative(between) @ strengths).max() > tolerance_mm:
            continue
        nodes = spline_lattice_grid(grid, steps)
        largest = _largest_sum(spline.centres, strengths, softened, nodes, tolerance_mm / factor)
        if factor * largest <= tolerance_mm:
            return Plan(steps, radius, factor * largest)
    return exact


def _choices(grid: Grid) -> Iterator[tuple[float, np.ndarray, float]]:
    """(cost, steps, radius in mm) of all lattices with about the same step in mm on every axis."""
    size = np.array(grid.size)
    voxel = float(grid.spacing[size > 1].min(initial=np.inf))
    if not np.isfinite(voxel):
        return
    for step in STEPS:
        steps = np.maximum(1, np.rint(step * voxel / grid.spacing)).astype(int)
        steps[size <= 2 * MARGIN * steps] = 1
        if (steps == 1).all():
            continue
        nodes = np.prod(spline_lattice_grid(grid, steps).size, dtype=float)
        for ratio in RADII:
            radius = ratio * float((steps * grid.spacing)[steps > 1].max())
            reached = np.minimum(2 * radius / grid.spacing + 1, size).prod()
            yield NODE_COST * nodes + PEAK_COST * reached, steps, radius


def _error_per_derivative(steps_mm: np.ndarray, wide: np.ndarray) -> float:
    """The interpolation error is at most this times the largest sixth derivative along an axis.

    f - ABC f = (f - A f) + A (f - B f) + AB (f - C f) for interpolations A, B, C along the axes.
    """
    powers = np.sort(steps_mm[wide])[::-1] ** 6
    return PEANO * float(powers @ LEBESGUE ** np.arange(len(powers)))


def _largest_sum(
    centres: np.ndarray, strengths: np.ndarray, softened: Softened, nodes: Grid, limit: float
) -> float:
    """A bound on sum_i strength_i |sixth derivative of kernel i| anywhere on a grid.

    Branch and bound: blocks where the bound is above limit are cut in eight. Infinite when that
    takes too many blocks.
    """
    size = np.array(nodes.size, dtype=np.float64)
    side = np.clip(np.rint(softened.radius_mm / nodes.spacing), 1, size)
    starts = np.indices(np.ceil(size / side).astype(int)).reshape(3, -1).T * side - 0.5
    corners = np.indices((2, 2, 2)).reshape(3, -1).T
    settled = 0.0
    while len(starts):
        if len(starts) > MAX_BLOCKS:
            return np.inf
        half_diagonals = ((corners - 0.5) * side) @ nodes.world_from_index[:3, :3].T
        reach = np.linalg.norm(half_diagonals, axis=1).max()
        middles = nodes.world(starts + side / 2)
        bounds = np.concatenate(
            [
                softened.sixth_derivative(np.maximum(_distances(part, centres) - reach, 0))
                @ strengths
                for part in np.array_split(middles, len(middles) // BATCH + 1)
            ]
        )
        settled = max(settled, bounds[bounds <= limit].max(initial=0.0))
        side = side / 2
        starts = (starts[bounds > limit][:, None] + corners * side).reshape(-1, 3)
    return settled


def _distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(squared_distances(points, centres), 0))
