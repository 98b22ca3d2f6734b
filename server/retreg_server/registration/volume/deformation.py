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
from retreg_server.registration.model import Stages
from retreg_server.registration.numerics.discrete_search import convex_start
from retreg_server.registration.numerics.fields import composed, half_sizes, identity_grid, warped
from retreg_server.registration.numerics.folding import unfolded
from retreg_server.registration.numerics.lattice_displacement import (
    displacement_from_field,
    field_from_displacement,
    rescaled,
)
from retreg_server.registration.numerics.spaces import TensorVolume, sample
from retreg_server.registration.numerics.volume_features import described, grey_share
from retreg_server.registration.volume.affine_gauss_newton import Aligner
from retreg_server.registration.volume.both_directions import both_directions
from retreg_server.registration.volume.field_gauss_newton import (
    Stiffness,
    boxes_of,
    normal_equations,
    smooth_step,
)
from retreg_server.registration.volume.leeway import Leeway, along_phase, within_slices
from retreg_server.registration.volume.volume_pair import (
    MARGIN_MM,
    TRIM_MM,
    UNEQUAL,
    PreparedVolume,
    VolumePairLevel,
    common_spacing,
    weighted,
)

FINE_VOXELS = 128  # along the longest side of the smaller object
FINEST = 1.0  # voxels of the coarser volume: there is nothing to be seen below
LONGEST_STEP = 1.0  # voxels
SETTLED = 0.01  # voxels: a smaller mean step ends a level
SOLVER_ITERATIONS = 30
SEARCHED = 4  # voxels along a side of a node of the discrete search
SEARCH_WORK = 1.0  # of the search, in steps at full resolution, for the progress
COMPARED_MM = 4.0  # smaller voxels show details that do not meet yet, larger ones outlines only
COMPARED_POINTS = 8000
SAME = 0.4  # of the descriptor distance of chance: 0.18 to 0.30 for one person, 0.5 for two
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


def deform(
    fixed: PreparedVolume,
    moving: PreparedVolume,
    moving_from_fixed: np.ndarray,
    fixed_from_moving: np.ndarray,
    starts: tuple[DisplacementField, DisplacementField] | None = None,
    stages: Stages | None = None,
    grids: tuple[Grid, Grid] | None = None,
    phase: str = "",
) -> Deformed:
    """Deform two volumes onto each other after a global stage, in both directions.

    moving_from_fixed, fixed_from_moving: (4, 4) LPS mm, the global stage of each direction.
    starts: residuals to begin with, in the fixed and in the moving world; see refine. stages hears
    of the progress in the current part. grids: those of the fixed and of the moving image; then
    the fields have their nodes on voxels, see on_voxels. phase: see along_phase; empty for none.
    """
    pair = pair_of(fixed, moving)
    ways = (
        suitable_leeway(pair, (fixed, moving), moving_from_fixed, phase),
        suitable_leeway(pair.swapped, (moving, fixed), fixed_from_moving, phase),
    )
    forward_start, backward_start = starts or (None, None)
    on = grids or (None, None)
    forward, backward = both_directions(
        lambda own: on_voxels(
            refine(pair, moving_from_fixed, forward_start, own, way=ways[0]), on[0]
        ),
        lambda own: on_voxels(
            refine(pair.swapped, fixed_from_moving, backward_start, own, way=ways[1]), on[1]
        ),
        stages or Stages(),
    )
    lengths = np.linalg.norm(forward.vectors_mm, axis=0)
    return Deformed(
        Chain((forward, Affine(moving_from_fixed))),
        Chain((backward, Affine(fixed_from_moving))),
        {"deformation_mean_mm": float(lengths.mean()), "deformation_max_mm": float(lengths.max())},
    )


def suitable_leeway(
    pair: VolumePairLevel,
    prepared: tuple[PreparedVolume, PreparedVolume],
    matrix: np.ndarray,
    phase: str,
) -> Leeway | None:
    """What suits the domain and the target, prepared, under the matrix target_from_domain.

    Thick slices hold back only what shows the same anatomy: other people differ across them, too.
    """
    domain, target = (each.volume for each in prepared)
    if phase:
        return along_phase(domain, target, matrix, phase)
    within = within_slices(domain, target, matrix)
    if within is None:
        return None
    seen = Aligner(pair, COMPARED_POINTS)
    return within if seen.distance(matrix) < SAME * seen.chance else None


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


def pair_of(fixed: PreparedVolume, moving: PreparedVolume) -> VolumePairLevel:
    """Both volumes in cubic voxels around their objects, as fine as a deformation needs them."""
    coarser = max(float(np.prod(view.volume.spacing) ** (1 / 3)) for view in (fixed, moving))
    spacing = common_spacing(fixed, moving, FINE_VOXELS, FINEST * coarser)
    ratio = moving.foreground.volume_mm3 / fixed.foreground.volume_mm3
    insets = (
        TRIM_MM if ratio > UNEQUAL else -MARGIN_MM,
        TRIM_MM if 1 / ratio > UNEQUAL else -MARGIN_MM,
    )
    return VolumePairLevel(
        weighted(fixed.cut(spacing), 1, insets[0]), weighted(moving.cut(spacing), 1, insets[1])
    )


def refine(
    pair: VolumePairLevel,
    target_from_domain: np.ndarray,
    start: DisplacementField | None = None,
    stages: Stages | None = None,
    levels: Sequence[Level] = LEVELS,
    way: Leeway | None = None,
) -> DisplacementField:
    """The residual u in LPS mm for which x → target_from_domain · (x + u(x)) aligns the pair.

    start: a residual to begin with, such as that of a network; the discrete search looks around it.
    way: in which directions it may move; None for all. The result has its own lattice, coarser than
    the volumes, and no fold: see numerics/folding.
    """
    stages = stages or Stages()
    seen = sample(pair.target, pair.domain, target_from_domain)
    aligned = TensorVolume(seen, pair.domain.world_from_norm)
    volumes = pair.domain, aligned
    ends = time.monotonic() + TIME_LIMIT_S
    share = _grey_share(*volumes)
    work = [SEARCH_WORK] + [level.iterations / level.factor**2 for level in levels]
    shares = [0.95 * each / sum(work) for each in work]
    finest = _described(*volumes, 1, share)
    stages.at(0.0)
    with stages.part(shares[0]):
        displacement = _searched(*volumes, finest, start, way)
    for level, part in zip(levels, shares[1:], strict=True):
        features = finest if level.factor == 1 else _described(*volumes, level.factor, share)
        weight, moving_weight = (each.pooled(level.factor).tensor[:, 1:] for each in volumes)
        with stages.part(part):
            steps = _LevelSteps(*features, weight, moving_weight, level, way)
            displacement = steps.settled(displacement, stages, ends)
    field = unfolded(field_from_displacement(displacement, pair.domain))
    stages.at(1.0)
    return field


def _grey_share(domain: TensorVolume, aligned: TensorVolume) -> float:
    """See grey_share; judged once, in voxels of about COMPARED_MM."""
    factor = max(1, round(COMPARED_MM / domain.spacing[0]))
    first, second = (functional.avg_pool3d(each.tensor, factor) for each in (domain, aligned))
    return grey_share(first[:, :1], second[:, :1], first[:, 1:] * second[:, 1:])


def _described(
    domain: TensorVolume, aligned: TensorVolume, factor: int, share: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The features (1, c, k, j, i) of both volumes, pooled by factor before."""
    first, second = (described(each.pooled(factor).tensor[:, :1], share)
                     for each in (domain, aligned))
    return first, second


def _searched(
    domain: TensorVolume,
    aligned: TensorVolume,
    finest: tuple[torch.Tensor, torch.Tensor],
    start: DisplacementField | None,
    way: Leeway | None,
) -> torch.Tensor:
    """The best of many shifts for every node of the search, around the start."""
    nodes = domain.pooled(SEARCHED)
    weight = nodes.tensor[:, 1:]
    fixed, moving = (functional.avg_pool3d(features, SEARCHED) for features in finest)
    moving = torch.cat([moving, aligned.pooled(SEARCHED).tensor[:, 1:]], 1)
    nothing = torch.zeros_like(fixed[:, :3])
    first = nothing if start is None else displacement_from_field(start, nodes)
    seen = warped(moving, first)
    allowed = None if way is None else way.allowed
    step = convex_start(fixed[0], seen[0, :-1], (weight * seen[:, -1:])[0, 0], allowed=allowed)
    return composed(step, first)


class _LevelSteps:
    """The two volumes at one level: their features (1, c, k, j, i) and weights (1, 1, k, j, i)."""

    def __init__(
        self,
        fixed: torch.Tensor,
        moving: torch.Tensor,
        weight: torch.Tensor,
        moving_weight: torch.Tensor,
        level: Level,
        way: Leeway | None,
    ) -> None:
        self._level, self._way = level, way
        self._fixed, self._weight = fixed[0], weight[0, 0]
        self._moving, self._moving_weight = moving, _framed(moving_weight)
        near = functional.max_pool3d(weight, 3, 1, 1)  # slopes need the neighbours
        self._boxes = boxes_of(near[0, 0])
        self._seen = torch.zeros_like(moving[0])
        self._shown = torch.zeros_like(self._weight)
        self._identity = identity_grid(tuple(self._weight.shape))
        self._shape = torch.Size(n // level.pool for n in self._weight.shape)

    def settled(self, displacement: torch.Tensor, stages: Stages, ends: float) -> torch.Tensor:
        """The displacement on the lattice of this level, after its steps.

        ends: when time.monotonic() says enough.
        """
        displacement = rescaled(displacement, self._shape)
        iterations = self._level.iterations
        for iteration in range(iterations):
            stages.at(iteration / iterations)
            step = self._step(displacement)
            displacement = composed(step, displacement)
            length = float(step.square().sum(dim=1).sqrt().mean())
            if length < SETTLED or time.monotonic() > ends:
                break
        return displacement

    def _step(self, displacement: torch.Tensor) -> torch.Tensor:
        self._look(rescaled(displacement, self._weight.shape))
        weight = self._weight * self._shown
        normal = normal_equations(self._fixed, self._seen, weight, self._level.pool)
        step = smooth_step(
            normal, displacement[0], self._level.stiffness, SOLVER_ITERATIONS, self._way
        )
        return step[None].clamp_(-LONGEST_STEP, LONGEST_STEP)

    def _look(self, displacement: torch.Tensor) -> None:
        """Note what is seen of the moving volume, and its weight, where the fixed one counts."""
        half = half_sizes(tuple(displacement.shape[2:]), displacement)
        for box in self._boxes:
            places = self._identity[:, *box] + displacement[:, :, *box].movedim(1, -1) / half
            self._seen[:, *box] = functional.grid_sample(
                self._moving, places, align_corners=False, padding_mode="border"
            )[0]
            self._shown[box] = functional.grid_sample(
                self._moving_weight, places, align_corners=False, padding_mode="border"
            )[0, 0]


def _framed(weight: torch.Tensor) -> torch.Tensor:
    """A weight (1, 1, k, j, i) that is 0 on the border, and so beyond."""
    return functional.pad(weight[:, :, 1:-1, 1:-1, 1:-1], [1] * 6)
