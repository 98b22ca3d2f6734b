"""SmoothProper: the smoothing of a displacement field, unrolled inside the network (2-D and 3-D).

Zhang et al., IPMI 2025, "Unsupervised deformable image registration with structural nonparametric
smoothing". Every pixel x has a distribution p(x) over m displacements b_i. The layer minimises

    sum_x w ( |p - q|^2 + 1/(2a) sum_i q_i |v - b_i|^2 + 1/(2a) |q B - v|^2 ) + beta |grad v|^2

over distributions q and a smooth field v, in turn. The weight w is an addition to the paper: 1 is
the paper's energy, and small values say that p knows little there, so that the field of the
surroundings fills the place in instead of being pulled to zero by an undecided p.

Shapes: p, q (b, m, [z,] y, x); v (b, d, [z,] y, x) with channels x, y(, z); w (b, 1, [z,] y, x);
bases (m, d). Displacements are in pixels of these maps.
"""

from __future__ import annotations

import math

import torch
from torch import nn

SMALLEST_ALPHA = 0.5
NEWTON_STEPS = 25
CONJUGATE_STEPS = 8


class SmoothProper(nn.Module):
    """p (b, m, *shape) to v (b, d, *shape): steps alternations of the two closed forms.

    alpha and beta are learned as their logarithms and start as given. Without weights the smooth
    field is exact; with weights it takes CONJUGATE_STEPS conjugate-gradient steps.
    """

    def __init__(
        self, bases: torch.Tensor, steps: int, alpha: float = 2.0, beta: float = 1.0
    ) -> None:
        super().__init__()
        self.register_buffer("bases", bases, persistent=False)
        self.bases: torch.Tensor
        self.steps = steps
        self.log_alpha = nn.Parameter(torch.tensor(math.log(alpha)))
        self.log_beta = nn.Parameter(torch.tensor(math.log(beta)))

    def forward(self, p: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        alpha, beta = self.log_alpha.exp().clamp_min(SMALLEST_ALPHA), self.log_beta.exp()
        v = smooth_field(expected(p, self.bases), alpha * beta, weight)
        q = None
        for _ in range(self.steps):
            q = closest_distribution(p, v, self.bases, alpha, q)
            v = smooth_field(expected(q, self.bases), alpha * beta, weight, v)
        return v


def expected(q: torch.Tensor, bases: torch.Tensor) -> torch.Tensor:
    """q B: the mean displacement (b, d, *shape) of distributions (b, m, *shape)."""
    return torch.einsum("bm...,md->bd...", q, bases.to(q.dtype))


def certainty(p: torch.Tensor, least: float = 0.01) -> torch.Tensor:
    """(b, 1, *shape) from least to 1: one minus the entropy of p as a share of the largest one."""
    entropy = -(p * p.clamp_min(1e-12).log()).sum(dim=1, keepdim=True)
    return (1 - entropy / math.log(p.shape[1])).clamp_min(least)


def energy(
    p: torch.Tensor,
    q: torch.Tensor,
    v: torch.Tensor,
    bases: torch.Tensor,
    alpha: float,
    beta: float,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """The energy (b,) at the top of this file; gradients are differences of neighbours."""
    far = _squared_distances(v, bases)
    data = (p - q).square().sum(dim=1, keepdim=True)
    data = data + (q * far).sum(dim=1, keepdim=True) / (2 * alpha)
    data = data + (expected(q, bases) - v).square().sum(dim=1, keepdim=True) / (2 * alpha)
    if weight is not None:
        data = data * weight
    rough = torch.stack(
        [v.diff(dim=axis).square().flatten(1).sum(dim=1) for axis in range(2, v.ndim)]
    )
    return data.flatten(1).sum(dim=1) + beta * rough.sum(dim=0)


def closest_distribution(
    p: torch.Tensor,
    v: torch.Tensor,
    bases: torch.Tensor,
    alpha: torch.Tensor | float,
    near: torch.Tensor | None = None,
) -> torch.Tensor:
    """The q-step: the minimiser q of the energy for a fixed v. The weight does not change it.

    With c = 1/(2 alpha) and z = p - c |b|^2 / 2 + 2 c B v it is q = max(0, z - c B u - t), where
    u = B^T q and t makes q sum to 1. Which displacements are in use is found by an active-set
    Newton method; for those the equations are solved exactly, by Woodbury's (d, d) inverse. Only
    the last solution carries gradients, which are those of the minimiser. near: a distribution to
    start from. The method may go in circles for alpha below SMALLEST_ALPHA; q is then a
    distribution, but not the minimiser.
    """
    bases = bases.to(p.dtype)
    c = torch.as_tensor(1 / (2 * alpha), dtype=p.dtype, device=p.device)
    lengths = bases.square().sum(dim=1)[:, None]
    z = p.flatten(2) - c / 2 * lengths + 2 * c * (bases @ v.flatten(2))
    with torch.no_grad():
        used = torch.ones_like(z) if near is None else (near.flatten(2) > 0).to(z.dtype)
        used = _displacements_in_use(z, used, bases, c)
    u, threshold = _solved(z, used, bases, c)
    q = (z - c * (bases @ u) - threshold).clamp_min(0)
    return (q / q.sum(dim=1, keepdim=True)).reshape(p.shape)


def _displacements_in_use(
    z: torch.Tensor, used: torch.Tensor, bases: torch.Tensor, c: torch.Tensor
) -> torch.Tensor:
    """Where the minimiser is positive: (b, m, n) of 0 and 1. used: the first guess."""
    for _ in range(NEWTON_STEPS):
        u, threshold = _solved(z, used, bases, c)
        now = (z - c * (bases @ u) > threshold).to(z.dtype)
        if torch.equal(now, used):
            break
        used = now
    return used


def _solved(
    z: torch.Tensor, used: torch.Tensor, bases: torch.Tensor, c: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """u (b, d, n) and the threshold (b, 1, n) if the displacements in use are the right ones."""
    m, d = bases.shape
    with_one = torch.cat([torch.ones_like(bases[:, :1]), bases], dim=1)
    pairs = (with_one[:, :, None] * with_one[:, None, :]).reshape(m, -1)
    moments = (pairs.T @ used).reshape(len(z), d + 1, d + 1, -1)
    count, first, second = moments[:, :1, 0], moments[:, 1:, 0], moments[:, 1:, 1:]
    sums = with_one.T @ (z * used)
    excess = (sums[:, :1] - 1) / count
    scatter = second - first[:, :, None] * first[:, None] / count[:, :, None]
    matrix = torch.eye(d, dtype=z.dtype, device=z.device)[..., None] + c * scatter
    right = sums[:, 1:] - first * excess
    u = torch.linalg.solve(matrix.movedim(-1, 1), right.movedim(1, -1)[..., None])[..., 0]
    u = u.movedim(-1, 1)
    return u, excess - c * (first * u).sum(dim=1, keepdim=True) / count


def smooth_field(
    target: torch.Tensor,
    strength: torch.Tensor | float,
    weight: torch.Tensor | None = None,
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    """The v-step: (W - strength Laplace) v = W target, nothing flowing across the edges.

    Without a weight this is exact by cosine transforms; with one, conjugate gradients start at
    start and are preconditioned with the exact solution for the mean weight.
    """
    if weight is None:
        return screened_poisson(target, strength, torch.ones_like(target[:, :1, :1]).mean())
    v = target if start is None else start
    return _conjugate_gradients(weight * target, v, weight, strength)


def screened_poisson(
    right: torch.Tensor, strength: torch.Tensor | float, constant: torch.Tensor
) -> torch.Tensor:
    """The solution v of (constant - strength Laplace) v = right, by cosine transforms.

    Neumann edges: the value beyond an edge is that of the edge. constant: positive, a scalar or
    one number per image (b, 1, …, 1).
    """
    waves = [_cosine_matrix(n, right) for n in right.shape[2:]]
    spectrum = right
    total = constant
    for axis, wave in enumerate(waves):
        n = wave.shape[0]
        spectrum = _along(wave, spectrum, axis)
        frequencies = torch.arange(n, device=right.device, dtype=right.dtype)
        eigenvalues = 2 - 2 * torch.cos(math.pi * frequencies / n)
        later = right.ndim - 3 - axis
        total = total + strength * eigenvalues.reshape(-1, *(1,) * later)
    solution = spectrum / total
    for axis, wave in enumerate(waves):
        solution = _along(wave.T, solution, axis)
    return solution


def _cosine_matrix(n: int, like: torch.Tensor) -> torch.Tensor:
    """The orthonormal DCT-II as a matrix: for these sizes a product beats an FFT."""
    index = torch.arange(n, device=like.device, dtype=torch.float64)
    wave = torch.cos(math.pi / n * index[:, None] * (index[None, :] + 0.5)) * math.sqrt(2 / n)
    wave[0] /= math.sqrt(2)
    return wave.to(like.dtype)


def _along(matrix: torch.Tensor, field: torch.Tensor, axis: int) -> torch.Tensor:
    """The matrix applied to spatial axis number axis."""
    moved = field.movedim(axis + 2, -1) @ matrix.T
    return moved.movedim(-1, axis + 2)


def negative_laplacian(v: torch.Tensor) -> torch.Tensor:
    """Differences to the neighbours inside, summed: (b, d, *shape)."""
    total = torch.zeros_like(v)
    for axis in range(2, v.ndim):
        flow = v.diff(dim=axis)
        none = torch.zeros_like(v.narrow(axis, 0, 1))
        total = total - torch.cat([flow, none], dim=axis) + torch.cat([none, flow], dim=axis)
    return total


def _conjugate_gradients(
    right: torch.Tensor, start: torch.Tensor, weight: torch.Tensor, strength: torch.Tensor | float
) -> torch.Tensor:
    """CONJUGATE_STEPS steps for (weight - strength Laplace) v = right, each image by itself."""
    mean = weight.mean(dim=tuple(range(1, weight.ndim)), keepdim=True)

    def inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * b).sum(dim=tuple(range(1, a.ndim)), keepdim=True)

    v = start
    rest = right - weight * v - strength * negative_laplacian(v)
    better = screened_poisson(rest, strength, mean)
    direction, size = better, inner(rest, better)
    tiny = torch.finfo(v.dtype).tiny
    for _ in range(CONJUGATE_STEPS):
        image = weight * direction + strength * negative_laplacian(direction)
        length = size / inner(direction, image).clamp_min(tiny)
        v = v + length * direction
        rest = rest - length * image
        better = screened_poisson(rest, strength, mean)
        new_size = inner(rest, better)
        direction = better + new_size / size.clamp_min(tiny) * direction
        size = new_size
    return v


def _squared_distances(v: torch.Tensor, bases: torch.Tensor) -> torch.Tensor:
    """|v - b_i|^2 (b, m, *shape)."""
    bases = bases.to(v.dtype)
    cross = torch.einsum("md,bd...->bm...", bases, v)
    lengths = bases.square().sum(dim=1).reshape(1, -1, *(1,) * (v.ndim - 2))
    return v.square().sum(dim=1, keepdim=True) - 2 * cross + lengths
