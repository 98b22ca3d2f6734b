"""In which directions a deformation may move, and how stiff it is.

Thick slices say little of what happens across them; echo-planar images are distorted along their
phase-encoding axis and hardly at all along the others (Jezzard and Balaban 1995).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from retreg_server.registration.numerics.spaces import TensorVolume

AXES = {"LR": 0, "AP": 1, "SI": 2}  # of a canonical volume
THICK = 2.0  # times the spacing in the slice, of slices that say too little of what is across
ANOTHER = 0.5  # sine of the angle between slices of different orientation
ALONG = 0.3  # of the usual stiffness, along a phase-encoding axis


@dataclass(frozen=True, eq=False)
class Leeway:
    """What is asked of displacements in the axes of the domain's lattice.

    allowed: (3, 3), projects onto the directions that are free. stiffness: how many times more than
    usual smoothness counts.
    """

    allowed: torch.Tensor
    stiffness: float

    def within(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors (3, k, j, i) without what is not allowed."""
        return torch.einsum("ab,bkji->akji", self.allowed, vectors)


def along_phase(
    domain: TensorVolume, target: TensorVolume, target_from_domain: np.ndarray, phase: str
) -> Leeway:
    """The residual u of x → target_from_domain · (x + u(x)) that an echo-planar image asks for.

    Both volumes are canonical, with the spacing that they were stored with. phase: one of AXES, of
    the volume of the larger voxels, which is taken for the distorted one.
    """
    column = _axes(domain)[:, AXES[phase]]
    if np.prod(target.spacing) > np.prod(domain.spacing):
        column = np.linalg.solve(target_from_domain[:3, :3], _axes(target)[:, AXES[phase]])
    axis = _unit(_axes(domain).T @ column)
    return _leeway(np.outer(axis, axis), ALONG)


def within_slices(
    domain: TensorVolume, target: TensorVolume, target_from_domain: np.ndarray
) -> Leeway | None:
    """The residual u, see along_phase, of what meets already: none across thick slices, and stiffer
    within them by how many times thicker they are, cubed. None without thick slices."""
    allowed, most = np.eye(3), 1.0
    for volume, pulled_back in ((domain, np.eye(3)), (target, target_from_domain[:3, :3].T)):
        times = volume.spacing / np.median(volume.spacing)
        if times.max() < THICK:
            continue
        normal = allowed @ _axes(domain).T @ pulled_back @ _axes(volume)[:, times.argmax()]
        most = max(most, float(times.max()))
        if np.linalg.norm(normal) > ANOTHER:
            allowed = allowed - np.outer(_unit(normal), _unit(normal))
    return None if most == 1 else _leeway(allowed, most**3)


def _axes(volume: TensorVolume) -> np.ndarray:
    """(3, 3) unit columns: the axes (i, j, k) in the world."""
    columns = volume.world_from_norm[:3, :3]
    axes: np.ndarray = columns / np.linalg.norm(columns, axis=0)
    return axes


def _unit(vector: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vector / np.linalg.norm(vector)
    return unit


def _leeway(allowed: np.ndarray, stiffness: float) -> Leeway:
    return Leeway(torch.from_numpy(allowed).float(), stiffness)
