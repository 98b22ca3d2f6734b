"""Deformable refinement of a global registration of two volumes, without training.

A discrete search finds large displacements on a coarse lattice, by descriptors of the finest
voxels: those of coarse voxels take one gyrus for the next. Gauss-Newton steps on MIND-SSC with
diffusion and bending energies make them precise from coarse to fine. Each step moves points before
the ones that were found already, and in the end the field is smoothed where it would fold.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from retreg.geometry import Grid
from retreg.transforms import Affine, Chain, DisplacementField
from retreg_server.registration.brain.both_directions import Progress, side_by_side
from retreg_server.registration.brain.field_gauss_newton import (
    Stiffness,
    boxes_of,
    normal_equations,
    smooth_step,
)
from retreg_server.registration.brain.volume_pair import (
    MARGIN_MM,
    TRIM_MM,
    UNEQUAL,
    Pair,
    View,
    weighted,
)
from retreg_server.registration.numerics.discrete_search import convex_start
from retreg_server.registration.numerics.fields import composed, half_sizes, identity_grid, warped
from retreg_server.registration.numerics.folding import unfolded
from retreg_server.registration.numerics.lattice_displacement import (
    field_from_shift,
    resized,
    shift_from_field,
)
from retreg_server.registration.numerics.spaces import NetInput, sample
from retreg_server.registration.numerics.volume_features import described, grey_share

FINE_VOXELS = 128  # along the longest side of the smaller object
FINEST = 1.0  # voxels of the coarser volume: there is nothing to be seen below
LONGEST_STEP = 1.0  # voxels
SETTLED = 0.01  # voxels: a smaller mean step ends a level
SOLVER_ITERATIONS = 30
SEARCHED = 4  # voxels along a side of a node of the discrete search
SEARCH_WORK = 1.0  # of the search, in steps at full resolution, for the progress
COMPARED_MM = 4.0  # smaller voxels show details that do not meet yet, larger ones outlines only
ROUNDING = 1e-3  # of a power of two
TIME_LIMIT_S = 120.0  # for one direction; then the levels that are left take one step each


@dataclass(frozen=True)
class Level:
    """One resolution: volumes pooled by factor, the displacement by another pool on top."""

    factor: int
    pool: int
    iterations: int
    stiffness: Stiffness


LEVELS = (Level(2, 1, 8, Stiffness(0.05, 0.6)), Level(1, 2, 6, Stiffness(0.05, 0.1)))


@dataclass(frozen=True, eq=False)
class Deformed:
    """Both directions of a deformable registration, found separately.

    forward: fixed to moving world, backward: moving to fixed; each a displacement field, then the
    affine of the global stage. evidence: numbers for the estimate.
    """

    forward: Chain
    backward: Chain
    evidence: dict[str, float]


def unheard(_fraction: float) -> None:
    """Progress that tells nobody."""


def deform(
    fixed: View,
    moving: View,
    moving_from_fixed: np.ndarray,
    fixed_from_moving: np.ndarray,
    starts: tuple[DisplacementField, DisplacementField] | None = None,
    progress: Progress = unheard,
    grids: tuple[Grid, Grid] | None = None,
) -> Deformed:
    """Deform two volumes onto each other after a global stage, in both directions.

    moving_from_fixed, fixed_from_moving: (4, 4) LPS mm, the global stage of each direction.
    starts: residuals to begin with, in the fixed and in the moving world; see refine. progress is
    called with the fraction done (0 to 1), and may raise Cancelled. grids: those of the fixed and
    of the moving image; then the fields have their nodes on voxels, see on_voxels.
    """
    pair = pair_of(fixed, moving)
    ahead, back = starts or (None, None)
    swapped = Pair(pair.target, pair.domain)
    on = grids or (None, None)
    there, here = side_by_side(
        lambda tell: on_voxels(refine(pair, moving_from_fixed, ahead, tell), on[0]),
        lambda tell: on_voxels(refine(swapped, fixed_from_moving, back, tell), on[1]),
        progress,
    )
    lengths = np.linalg.norm(there.vectors_mm, axis=0)
    return Deformed(
        Chain((there, Affine(moving_from_fixed))),
        Chain((here, Affine(fixed_from_moving))),
        {"deformation_mean_mm": float(lengths.mean()), "deformation_max_mm": float(lengths.max())},
    )


def on_voxels(field: DisplacementField, grid: Grid | None) -> DisplacementField:
    """The field with its nodes on every 2^n-th voxel of an image, and without folds there, too.

    Files and warped images, which need the field on voxels, then hold exactly this field. Its
    nodes lie no further apart than they did, since details are lost otherwise. None: as it is.
    """
    if grid is None:
        return field
    finest = float(field.grid.spacing.min())
    voxel = float(np.prod(grid.spacing) ** (1 / 3))
    step = 2 ** max(0, int(np.log2(finest / voxel) + ROUNDING))
    return unfolded(DisplacementField.sampled(field, grid.coarsened(step)))


def pair_of(fixed: View, moving: View) -> Pair:
    """Both volumes in cubic voxels around their objects, as fine as a deformation needs them."""
    coarser = max(float(np.prod(view.volume.spacing) ** (1 / 3)) for view in (fixed, moving))
    wanted = min(fixed.longest_mm, moving.longest_mm) / FINE_VOXELS
    spacing = max(wanted, FINEST * coarser)
    ratio = moving.foreground.volume_mm3 / fixed.foreground.volume_mm3
    insets = (
        TRIM_MM if ratio > UNEQUAL else -MARGIN_MM,
        TRIM_MM if 1 / ratio > UNEQUAL else -MARGIN_MM,
    )
    return Pair(
        weighted(fixed.cut(spacing), 1, insets[0]), weighted(moving.cut(spacing), 1, insets[1])
    )


def refine(
    pair: Pair,
    target_from_domain: np.ndarray,
    start: DisplacementField | None = None,
    progress: Progress = unheard,
    levels: Sequence[Level] = LEVELS,
) -> DisplacementField:
    """The residual u in LPS mm for which x → target_from_domain · (x + u(x)) aligns the pair.

    start: a residual to begin with, such as that of a network; the discrete search looks around it.
    The result has its own lattice, coarser than the volumes, and no fold: see jacobian_guard.
    """
    seen = sample(pair.target, pair.domain, target_from_domain)
    aligned = NetInput(seen, pair.domain.world_from_norm)
    volumes = pair.domain, aligned
    ends = time.monotonic() + TIME_LIMIT_S
    share = _grey_share(*volumes)
    work = [SEARCH_WORK] + [level.iterations / level.factor**2 for level in levels]
    done = np.cumsum(work) / sum(work)
    finest = _described(*volumes, 1, share)
    progress(0.0)
    shift = _searched(*volumes, finest, start)
    for number, level in enumerate(levels):

        def report(fraction: float, number: int = number) -> None:
            progress(0.95 * (done[number] + fraction * (done[number + 1] - done[number])))

        features = finest if level.factor == 1 else _described(*volumes, level.factor, share)
        weight, other = (each.pooled(level.factor).tensor[:, 1:] for each in volumes)
        shift = _Stage(*features, weight, other, level).settled(shift, report, ends)
    field = unfolded(field_from_shift(shift, pair.domain))
    progress(1.0)
    return field


def _grey_share(domain: NetInput, aligned: NetInput) -> float:
    """See grey_share; judged once, in voxels of about COMPARED_MM."""
    factor = max(1, round(COMPARED_MM / domain.spacing[0]))
    first, second = (functional.avg_pool3d(each.tensor, factor) for each in (domain, aligned))
    return grey_share(first[:, :1], second[:, :1], first[:, 1:] * second[:, 1:])


def _described(
    domain: NetInput, aligned: NetInput, factor: int, share: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The features (1, c, k, j, i) of both volumes, pooled by factor before."""
    first, second = (described(each.pooled(factor).tensor[:, :1], share)
                     for each in (domain, aligned))
    return first, second


def _searched(
    domain: NetInput,
    aligned: NetInput,
    finest: tuple[torch.Tensor, torch.Tensor],
    start: DisplacementField | None,
) -> torch.Tensor:
    """The best of many shifts for every node of the search, around the start."""
    nodes = domain.pooled(SEARCHED)
    weight = nodes.tensor[:, 1:]
    fixed, moving = (functional.avg_pool3d(features, SEARCHED) for features in finest)
    moving = torch.cat([moving, aligned.pooled(SEARCHED).tensor[:, 1:]], 1)
    first = torch.zeros_like(fixed[:, :3]) if start is None else shift_from_field(start, nodes)
    seen = warped(moving, first)
    step = convex_start(fixed[0], seen[0, :-1], (weight * seen[:, -1:])[0, 0])
    return composed(step, first)


class _Stage:
    """The two volumes at one level: their features (1, c, k, j, i) and weights (1, 1, k, j, i)."""

    def __init__(
        self,
        fixed: torch.Tensor,
        moving: torch.Tensor,
        weight: torch.Tensor,
        moving_weight: torch.Tensor,
        level: Level,
    ) -> None:
        self._level = level
        self._fixed, self._weight = fixed[0], weight[0, 0]
        self._moving = torch.cat([moving, _framed(moving_weight)], 1)
        near = functional.max_pool3d(weight, 3, 1, 1)  # slopes need the neighbours
        self._boxes = boxes_of(near[0, 0])
        self._seen = torch.zeros_like(self._moving[0])
        self._identity = identity_grid(tuple(self._weight.shape))
        self._shape = torch.Size(n // level.pool for n in self._weight.shape)

    def settled(self, shift: torch.Tensor, report: Progress, ends: float) -> torch.Tensor:
        """The shift on the lattice of this level, after its steps.

        ends: when time.monotonic() says enough.
        """
        shift = resized(shift, self._shape)
        iterations = self._level.iterations
        for iteration in range(iterations):
            report(iteration / iterations)
            step = self._step(shift)
            shift = composed(step, shift)
            length = float(step.square().sum(dim=1).sqrt().mean())
            if length < SETTLED or time.monotonic() > ends:
                break
        return shift

    def _step(self, shift: torch.Tensor) -> torch.Tensor:
        self._look(resized(shift, self._weight.shape))
        weight = self._weight * self._seen[-1]
        normal = normal_equations(self._fixed, self._seen[:-1], weight, self._level.pool)
        step = smooth_step(normal, shift[0], self._level.stiffness, SOLVER_ITERATIONS)
        return step[None].clamp_(-LONGEST_STEP, LONGEST_STEP)

    def _look(self, shift: torch.Tensor) -> None:
        """Note what is seen of the moving volume, and its weight, where the fixed one counts."""
        half = half_sizes(tuple(shift.shape[2:]), shift)
        for box in self._boxes:
            places = self._identity[:, *box] + shift[:, :, *box].movedim(1, -1) / half
            self._seen[:, *box] = functional.grid_sample(
                self._moving, places, align_corners=False, padding_mode="border"
            )[0]


def _framed(weight: torch.Tensor) -> torch.Tensor:
    """A weight (1, 1, k, j, i) that is 0 on the border, and so beyond."""
    return functional.pad(weight[:, :, 1:-1, 1:-1, 1:-1], [1] * 6)
