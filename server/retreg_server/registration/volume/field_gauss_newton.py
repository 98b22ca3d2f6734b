"""One Gauss-Newton step of a displacement: descriptors against smoothness.

Minimises sum w |F(x) - M(x + u(x))|^2 + diffusion |grad u|^2 + bending |laplace u|^2, linearised
at u (Horn and Schunck 1981, here with several channels; symmetric slopes after Malis 2004). The
linear system is solved by conjugate gradients with the diagonal as preconditioner. Only boxes
around voxels with a weight are looked at, which are a third of a head volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from retreg_server.registration.volume.leeway import Leeway

DAMPING = 1e-4
SOLVED = 1e-3  # of the initial squared residual
Box = tuple[slice, slice, slice]
SLICES = 4


def boxes_of(weight: torch.Tensor, multiple: int = 1) -> list[Box]:
    """Slabs (k, j, i) of a few slices, trimmed, that together hold every voxel with a weight.

    Their corners lie on multiples of multiple; what is left over at the end of an axis is not
    looked at.
    """
    depth = multiple * max(1, SLICES // multiple)
    whole = [n // multiple * multiple for n in weight.shape]
    heavy = weight[: whole[0], : whole[1], : whole[2]] > 0
    boxes = []
    for first in range(0, whole[0], depth):
        slab = heavy[first : first + depth].any(dim=0)
        if slab.any():
            last = min(first + depth, whole[0])
            rows, columns = (_span(slab.any(dim=other), multiple) for other in (1, 0))
            boxes.append((slice(first, last), rows, columns))
    return boxes


def grown(box: Box, shape: tuple[int, ...], by: int = 1) -> tuple[Box, Box]:
    """The box with by neighbours to each side in a volume of shape (k, j, i), and where in that it
    lies."""
    wide = [
        slice(max(s.start - by, 0), min(s.stop + by, n)) for s, n in zip(box, shape, strict=True)
    ]
    inner = [slice(s.start - w.start, s.stop - w.start) for s, w in zip(box, wide, strict=True)]
    return (wide[0], wide[1], wide[2]), (inner[0], inner[1], inner[2])


def _span(present: torch.Tensor, multiple: int) -> slice:
    """From the first to the last place where present is true, widened to multiples."""
    places = torch.nonzero(present)
    first, last = int(places[0]), int(places[-1])
    return slice(first // multiple * multiple, (last // multiple + 1) * multiple)


@dataclass(frozen=True)
class Stiffness:
    """Weights of the two smoothness terms, against descriptors that differ by up to 1."""

    diffusion: float
    bending: float

    def force(self, displacement: torch.Tensor) -> torch.Tensor:
        """Half the gradient of the smoothness energy at a shift (3, k, j, i)."""
        rough = negative_laplacian(displacement)
        force = rough * self.diffusion
        if self.bending > 0:
            force += negative_laplacian(rough).mul_(self.bending)
        return force

    def times(self, factor: float) -> Stiffness:
        """Both weights, multiplied."""
        return Stiffness(factor * self.diffusion, factor * self.bending)

    @property
    def diagonal(self) -> float:
        """The diagonal of force as a matrix, away from the border."""
        return 6 * self.diffusion + 42 * self.bending


@dataclass(frozen=True, eq=False)
class Normal:
    """The normal equations of the data term: matrices (6, k, j, i) and pulls (3, k, j, i).

    The six entries of each symmetric matrix are xx, xy, xz, yy, yz, zz.
    """

    matrices: torch.Tensor
    pulls: torch.Tensor

    def apply(self, step: torch.Tensor) -> torch.Tensor:
        """The matrices times a step (3, k, j, i)."""
        xx, xy, xz, yy, yz, zz = self.matrices
        x, y, z = step
        return torch.stack(
            [
                (xx * x).addcmul_(xy, y).addcmul_(xz, z),
                (xy * x).addcmul_(yy, y).addcmul_(yz, z),
                (xz * x).addcmul_(yz, y).addcmul_(zz, z),
            ]
        )


def normal_equations(
    fixed: torch.Tensor, warped: torch.Tensor, weight: torch.Tensor, pool: int
) -> Normal:
    """From features (c, k, j, i) and weights (k, j, i), averaged over blocks of pool^3 voxels.

    Voxels that differ much count less (weights of Geman and McClure 1987). Places without weight
    are not looked at.
    """
    boxes = boxes_of(weight, pool)
    weight = _trusted(fixed, warped, weight, boxes)
    sums = weight.new_zeros(9, *(n // pool for n in weight.shape))
    for box in boxes:
        products = _products(fixed, warped, box).mul_(weight[box])
        coarse = [slice(s.start // pool, s.stop // pool) for s in box]
        sums[:, coarse[0], coarse[1], coarse[2]] = functional.avg_pool3d(products, pool)
    # Slopes are per voxel of the features, the step is in larger ones.
    sums[:6] *= pool**2
    sums[6:] *= pool
    return Normal(sums[:6], sums[6:])


def _trusted(
    fixed: torch.Tensor, warped: torch.Tensor, weight: torch.Tensor, boxes: Sequence[Box]
) -> torch.Tensor:
    """The weight, less where the features differ much."""
    squared = torch.zeros_like(weight)
    for box in boxes:
        part = (slice(None), *box)
        squared[box] = (fixed[part] - warped[part]).square_().mean(dim=0)
    typical = (squared * weight).sum() / weight.sum().clamp_min(1e-6)
    return weight / squared.div_(typical.clamp_min(1e-9)).add_(1).square_()


def _products(fixed: torch.Tensor, warped: torch.Tensor, box: Box) -> torch.Tensor:
    """(9, k, j, i) in a box: six products of slopes, three of slopes and difference."""
    wide, inner = grown(box, fixed.shape[1:])
    both = (fixed[:, *wide] + warped[:, *wide]).mul_(0.5)
    slopes = []
    for axis in (3, 2, 1):
        line = [*inner]
        line[axis - 1] = slice(None)
        place = inner[axis - 1]
        slope = _slope(both[:, *line], axis)
        slopes.append(slope.narrow(axis, place.start, place.stop - place.start))
    x, y, z = slopes
    rest = fixed[:, *box] - warped[:, *box]
    pairs = ((x, x), (x, y), (x, z), (y, y), (y, z), (z, z), (x, rest), (y, rest), (z, rest))
    return torch.stack([(first * second).sum(dim=0) for first, second in pairs])


def smooth_step(
    normal: Normal,
    displacement: torch.Tensor,
    stiffness: Stiffness,
    iterations: int,
    leeway: Leeway | None = None,
) -> torch.Tensor:
    """The change (3, k, j, i) of a shift (3, k, j, i) that the equations ask for.

    Within the leeway, projected conjugate gradients find it.
    """
    if leeway is not None:
        stiffness = stiffness.times(leeway.stiffness)
    diagonal = normal.matrices[[0, 3, 5]] + stiffness.diagonal + DAMPING

    def within(vectors: torch.Tensor) -> torch.Tensor:
        return vectors if leeway is None else leeway.within(vectors)

    residual = within(normal.pulls - stiffness.force(displacement))
    step = torch.zeros_like(residual)
    scaled = within(residual / diagonal)
    direction = scaled
    power = (residual * scaled).sum()
    enough = SOLVED * power
    for _ in range(iterations):
        image = normal.apply(direction).add_(stiffness.force(direction))
        image = within(image.add_(direction, alpha=DAMPING))
        length = power / (direction * image).sum()
        step += length * direction
        residual -= length * image
        scaled = within(residual / diagonal)
        previous, power = power, (residual * scaled).sum()
        if power <= enough:
            break
        direction = scaled + (power / previous) * direction
    return step


def negative_laplacian(displacement: torch.Tensor) -> torch.Tensor:
    """Sum of the differences to the six neighbours, none beyond the border; (3, k, j, i)."""
    out = torch.zeros_like(displacement)
    for axis in (1, 2, 3):
        inner = displacement.shape[axis] - 1
        difference = displacement.diff(dim=axis)
        out.narrow(axis, 0, inner).sub_(difference)
        out.narrow(axis, 1, inner).add_(difference)
    return out


def _slope(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Central differences along an axis, one-sided at the border."""
    inner = values.shape[axis] - 2
    slope = torch.empty_like(values)
    torch.sub(
        values.narrow(axis, 2, inner), values.narrow(axis, 0, inner),
        out=slope.narrow(axis, 1, inner),
    ).mul_(0.5)
    for place, low in ((0, 0), (inner + 1, inner)):
        slope.narrow(axis, place, 1).copy_(
            values.narrow(axis, low + 1, 1) - values.narrow(axis, low, 1)
        )
    return slope
