"""Gauss-Newton on MIND-SSC descriptors: the precise part of a global registration.

Minimises E(p) = sum_i |D(x_i) - D'(x_i; p)|^2 over the parameters p of a matrix T, where D are the
descriptors of the domain and D' those of the target brought to its lattice by T. One step solves
(J^T J) dp = J^T r with the residuals r and their slopes J (Baker and Matthews 2004). MIND-SSC is
not rotation invariant, so the target is turned into the domain's lattice first and described there,
in every iteration. The step is symmetric (Malis 2004, efficient second-order minimisation): it uses
the mean of both descriptor gradients.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from retreg.geometry import apply_matrix
from retreg_server.registration.numerics.spaces import TensorVolume, sample
from retreg_server.registration.numerics.volume_features import mind_ssc_at
from retreg_server.registration.volume.volume_pair import VolumePairLevel

FAMILY_SIZES = {"rigid": 6, "similarity": 7, "affine": 12}
SETTLED = 3e-4  # a step below this fraction of a radian or of the radius ends the iterations
FURTHER = 1.4  # times each step: descriptors change less than their slopes promise
AROUND = 3  # voxels beside a point that its descriptor and its slopes are made of
FEWEST_SHOWN = 8


def generators(family: str, centre: np.ndarray, radius_mm: float) -> np.ndarray:
    """(n, 4, 4) directions in which a transform of the family can change, about centre.

    Turns and stretches move a point at radius_mm by radius_mm per unit, shifts likewise.
    """
    e = np.eye(3)
    turns = [np.cross(e, e[axis]) for axis in range(3)]
    stretches = [np.eye(3)] if family == "similarity" else []
    if family == "affine":
        stretches = [np.outer(e[a], e[b]) for a in range(3) for b in range(3)]
        stretches = [m + m.T for m in stretches if np.triu(m).any()]
    matrices = np.zeros((len(turns) + len(stretches) + 3, 4, 4))
    for number, linear in enumerate(turns + stretches):
        matrices[number, :3, :3] = linear
        matrices[number, :3, 3] = -linear @ centre
    for axis in range(3):
        matrices[axis - 3, axis, 3] = radius_mm
    return matrices


class Aligner:
    """Refines target_from_domain matrices on one VolumePairLevel.

    The descriptors of the domain, and the points where they are compared, are computed once.
    Slopes are in the axes of the domain's lattice, per voxel.
    """

    def __init__(self, pair: VolumePairLevel, points: int) -> None:
        self._pair = pair
        index = self._choose(points)
        self._voxels = torch.from_numpy(
            np.stack(np.unravel_index(index.numpy(), pair.domain.tensor.shape[2:]))
        )
        indices = self._voxels.flip(0).T.double().numpy()
        self._world = np.column_stack(
            [apply_matrix(pair.domain.world_from_index, indices), np.ones(len(indices))]
        )
        # Products of coordinates, about the mean point so that single precision is enough.
        self._origin = np.eye(4)
        self._origin[:3, 3] = self._world[:, :3].mean(axis=0)
        local = torch.from_numpy(self._world - [*self._origin[:3, 3], 0.0]).float()
        self._local = local
        self._products = (local[:, :, None] * local[:, None, :]).flatten(1)
        self._values, self._slopes = _described(pair.domain.tensor[:, :1], self._voxels)
        self._weights = pair.domain.tensor[0, 1].ravel()[index]

    def refine(
        self, target_from_domain: np.ndarray, steps: np.ndarray, iterations: int
    ) -> np.ndarray:
        """Up to iterations Gauss-Newton steps along the generators steps (n, 4, 4)."""
        for _ in range(iterations):
            change = FURTHER * self._step(target_from_domain, steps)
            growth = torch.from_numpy(np.einsum("n,nij->ij", change, steps))
            target_from_domain = target_from_domain @ torch.linalg.matrix_exp(growth).numpy()
            if np.abs(change).max() < SETTLED:
                break
        return target_from_domain

    def distance(self, target_from_domain: np.ndarray) -> float:
        """Weighted mean squared descriptor difference over the points (0 is perfect).

        What the smaller of both does not share with the other counts as unrelated: a few voxels
        are easily alike.
        """
        shown, weights = self._shown(target_from_domain)
        values = mind_ssc_at(*self._seen(target_from_domain, self._voxels[:, shown]))
        squared = (self._values[:, shown] - values).square_().mean(dim=0)
        found = float((weights * squared).sum() / weights.sum().clamp_min(1e-6))
        shared = min(float(weights.sum()) / max(self._shareable, 1e-6), 1.0)
        return shared * found + (1 - shared) * self.chance

    @cached_property
    def _shareable(self) -> float:
        """The sum of the weights where the smaller of the two volumes lies in the other one."""
        domain, target = (each.tensor[0, 1] for each in (self._pair.domain, self._pair.target))
        thinned = self._weights.sum() / domain.sum().clamp_min(1e-6)
        return float(thinned * torch.minimum(domain.sum(), target.sum()))

    @cached_property
    def chance(self) -> float:
        """Mean squared descriptor difference between unrelated points of the domain."""
        order = torch.randperm(self._values.shape[1], generator=torch.Generator().manual_seed(1))
        return float((self._values - self._values[:, order]).square().mean())

    def _shown(self, target_from_domain: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Which points (m,) the target shows, a few at least, and their weights (m,)."""
        target = self._pair.target
        matrix = np.linalg.inv(target.world_from_norm) @ target_from_domain
        places = torch.from_numpy(self._world @ matrix[:3].T).float()
        weights = self._weights * functional.grid_sample(
            target.tensor[:, 1:], places[None, None, None], align_corners=False
        ).ravel()
        shown = torch.nonzero(weights)[:, 0]
        if len(shown) < FEWEST_SHOWN:
            shown = torch.arange(min(FEWEST_SHOWN, len(weights)))
        return shown, weights[shown]

    def _seen(
        self, target_from_domain: np.ndarray, voxels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The target on the part of the domain's lattice around voxels (3, m), and where those are
        in it."""
        domain, target = self._pair.domain, self._pair.target
        sizes = np.array(domain.tensor.shape[2:])
        low = np.maximum(voxels.amin(dim=1).numpy() - AROUND, 0)
        high = np.minimum(voxels.amax(dim=1).numpy() + AROUND + 1, sizes)
        norm_from_part = np.diag([*((high - low) / sizes)[::-1], 1.0])
        norm_from_part[:3, 3] = ((low + high) / sizes - 1)[::-1]
        part = TensorVolume(
            torch.empty(1, 1, *(high - low).tolist()), domain.world_from_norm @ norm_from_part
        )
        intensity = TensorVolume(target.tensor[:, :1], target.world_from_norm)
        return sample(intensity, part, target_from_domain), voxels - torch.from_numpy(low)[:, None]

    def _step(self, target_from_domain: np.ndarray, steps: np.ndarray) -> np.ndarray:
        shown, weights = self._shown(target_from_domain)
        values, slopes = _described(*self._seen(target_from_domain, self._voxels[:, shown]))
        residual = self._values[:, shown].sub_(values)
        slopes = slopes.add_(self._slopes[:, :, shown]).mul_(0.5)
        squared = residual.square().sum(dim=0)
        weights = weights / (1 + squared / squared.mean().clamp_min(1e-9)).square()
        weighted = slopes * weights
        # For a change C (3, 4) of the local coordinates, first for all twelve entries of C.
        full, products = np.empty((3, 3, 4, 4)), self._products[shown]
        for a, b in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
            tensor = (weighted[:, a] * slopes[:, b]).sum(dim=0)
            full[a, b] = full[b, a] = (tensor @ products).double().numpy().reshape(4, 4)
        pulls = (weighted * residual[:, None]).sum(dim=0)
        pull = (pulls @ self._local[shown]).double().numpy()
        voxels_from_world = np.linalg.inv(self._pair.domain.world_from_index)[:3, :3]
        local = voxels_from_world @ (np.linalg.inv(self._origin) @ steps @ self._origin)[:, :3]
        hessian = np.einsum("pai,abij,qbj->pq", local, full, local, optimize=True)
        gradient = np.einsum("pai,ai->p", local, pull)
        damping = 1e-6 * np.trace(hessian) / len(steps) + 1e-12
        change: np.ndarray = np.linalg.solve(hessian + damping * np.eye(len(steps)), gradient)
        return change.clip(-0.2, 0.2)

    def _choose(self, count: int) -> torch.Tensor:
        """Flat indices of voxels off the border with a weight, spread evenly."""
        weight = self._pair.domain.tensor[0, 1].clone()
        for axis in range(3):
            weight.narrow(axis, 0, 1).zero_()
            weight.narrow(axis, weight.shape[axis] - 1, 1).zero_()
        index = torch.nonzero(weight.ravel() > 0.05)[:, 0]
        generator = torch.Generator().manual_seed(0)
        kept = torch.randperm(len(index), generator=generator)[:count]
        return index[kept].sort().values


def _described(volume: torch.Tensor, voxels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Descriptors (12, n) at voxels (3, n) as (k, j, i), and their slopes (12, 3, n) along i, j
    and k."""
    axes = torch.eye(3, dtype=torch.long).flip(0)[..., None]
    there, back = voxels[:, None] + axes.movedim(0, 1), voxels[:, None] - axes.movedim(0, 1)
    found = mind_ssc_at(volume, torch.cat([voxels[:, None], there, back], dim=1))
    return found[:, 0], (found[:, 1:4] - found[:, 4:]).mul_(0.5)
