"""Gauss-Newton on MIND-SSC descriptors: the precise part of a global registration.

Minimises E(p) = sum_i |D(x_i) - D'(x_i; p)|^2 over the parameters p of a matrix T, where D are the
descriptors of the domain and D' those of the target brought to its lattice by T. One step solves
(J^T J) dp = J^T r with the residuals r and their slopes J (Baker and Matthews 2004). MIND-SSC is
not rotation invariant, so the target is turned into the domain's lattice first and described there,
in every iteration. The step is symmetric (Malis 2004, efficient second-order minimisation): it uses
the mean of both descriptor gradients.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from retreg_server.registration.numerics.spaces import TensorVolume, sample
from retreg_server.registration.numerics.volume_features import mind_ssc
from retreg_server.registration.volume.volume_pair import VolumePairLevel

FAMILY_SIZES = {"rigid": 6, "similarity": 7, "affine": 12}
SETTLED = 1e-4  # a step below this fraction of a radian or of the radius ends the iterations


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
    """

    def __init__(self, pair: VolumePairLevel, points: int) -> None:
        self._pair = pair
        self._index = self._choose(points)
        world = pair.domain.voxel_centres()[self._index.numpy()]
        self._world = np.concatenate([world, np.ones((len(world), 1))], axis=1)
        # Products of coordinates, about the mean point so that single precision is enough.
        self._origin = np.eye(4)
        self._origin[:3, 3] = world.mean(axis=0)
        local = torch.from_numpy(self._world - [*self._origin[:3, 3], 0.0]).float()
        self._local = local
        self._products = (local[:, :, None] * local[:, None, :]).flatten(1)
        flat = mind_ssc(pair.domain.tensor[:, :1])[0].flatten(1)
        self._values = flat[:, self._index]
        self._gradients = self._gradient(flat)
        self._weights = pair.domain.tensor[0, 1].ravel()[self._index]

    def refine(
        self, target_from_domain: np.ndarray, steps: np.ndarray, iterations: int
    ) -> np.ndarray:
        """Up to iterations Gauss-Newton steps along the generators steps (n, 4, 4)."""
        for _ in range(iterations):
            change = self._step(target_from_domain, steps)
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
        flat, weights = self._seen(target_from_domain)
        squared = (self._values - flat[:, self._index]).square().mean(dim=0)
        found = float((weights * squared).sum() / weights.sum().clamp_min(1e-6))
        shared = min(float(weights.sum()) / max(self._shareable, 1e-6), 1.0)
        return shared * found + (1 - shared) * self.chance

    @property
    def _shareable(self) -> float:
        """The sum of the weights where the smaller of the two volumes lies in the other one."""
        domain, target = (each.tensor[0, 1] for each in (self._pair.domain, self._pair.target))
        thinned = self._weights.sum() / domain.sum().clamp_min(1e-6)
        return float(thinned * torch.minimum(domain.sum(), target.sum()))

    @property
    def chance(self) -> float:
        """Mean squared descriptor difference between unrelated points of the domain."""
        order = torch.randperm(self._values.shape[1], generator=torch.Generator().manual_seed(1))
        return float((self._values - self._values[:, order]).square().mean())

    def _seen(self, target_from_domain: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Descriptors (12, voxels) of the turned target, and the weights (n,) of the points."""
        intensity, weight = self._pair.target.tensor[:, :1], self._pair.target.tensor[:, 1:]
        matrix = np.linalg.inv(self._pair.target.world_from_norm) @ target_from_domain
        warped = sample(
            TensorVolume(intensity, self._pair.target.world_from_norm),
            self._pair.domain,
            target_from_domain,
        )
        places = torch.from_numpy(self._world @ matrix[:3].T).float()
        target_weight = functional.grid_sample(
            weight, places[None, None, None], align_corners=False
        ).ravel()
        return mind_ssc(warped)[0].flatten(1), self._weights * target_weight

    def _step(self, target_from_domain: np.ndarray, steps: np.ndarray) -> np.ndarray:
        flat, weights = self._seen(target_from_domain)
        residual = self._values - flat[:, self._index]
        slope = (self._gradients + self._gradient(flat)) / 2
        squared = residual.square().sum(dim=0)
        weights = weights / (1 + squared / squared.mean().clamp_min(1e-9)).square()
        tensors = torch.einsum("can,cbn->abn", slope, slope * weights)
        pulls = torch.einsum("can,cn->an", slope, residual * weights)
        # For a change C (3, 4) of the local coordinates, first for all twelve entries of C.
        full = (tensors.flatten(0, 1) @ self._products).double().numpy().reshape(3, 3, 4, 4)
        pull = (pulls @ self._local).double().numpy()
        local = (np.linalg.inv(self._origin) @ steps @ self._origin)[:, :3]
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

    def _gradient(self, flat: torch.Tensor) -> torch.Tensor:
        """(12, 3, n) derivatives per mm along the world axes, by central differences."""
        i, j, _ = self._pair.domain.size
        strides = (1, i, i * j)
        per_index = torch.stack(
            [(flat[:, self._index + s] - flat[:, self._index - s]) / 2 for s in strides], dim=1
        )
        index_from_world = np.linalg.inv(self._pair.domain.world_from_index)[:3, :3]
        return torch.einsum(
            "cin,iw->cwn", per_index, torch.from_numpy(index_from_world).to(flat.dtype)
        )
