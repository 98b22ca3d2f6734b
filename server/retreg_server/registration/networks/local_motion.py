"""How far a neighbourhood seems to have moved between two volumes (Lucas and Kanade 1981)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from retreg_server.registration.numerics.volume_features import local_mean

STIFFNESS = 0.05  # of the mean squared gradient: what keeps flat places from moving
LEAST_DETERMINANT = 1e-30  # keeps volumes without any contrast from dividing by 0


def local_motion(
    fixed: torch.Tensor, moving: torch.Tensor, windows: Sequence[int]
) -> torch.Tensor:
    """Displacements (b, 3 * len(windows), z, y, x) in voxels, channels x, y, z of each window.

    fixed, moving: (b, c, z, y, x), any channels. For each cube of an odd number of voxels the
    displacement u minimises sum |g . u - (fixed - moving)|^2 + s |u|^2, with the gradients g of
    the mean of both; right as long as it is shorter than the structures are wide.
    """
    mean = (fixed + moving) / 2
    slopes = torch.stack([torch.gradient(mean, dim=axis)[0] for axis in (4, 3, 2)], dim=1)
    products = torch.einsum("bic...,bjc...->bij...", slopes, slopes).flatten(1, 2)
    sides = torch.einsum("bic...,bc...->bi...", slopes, fixed - moving)
    stiff = STIFFNESS * products[:, ::4].mean(dim=(1, 2, 3, 4))
    return torch.cat(
        [
            _solved(local_mean(products, window), local_mean(sides, window), stiff)
            for window in windows
        ],
        dim=1,
    )


def _solved(products: torch.Tensor, sides: torch.Tensor, stiff: torch.Tensor) -> torch.Tensor:
    """Solutions (b, 3, …) of the symmetric systems (b, 9, …) + stiff, by Cramer's rule."""
    matrix = products.reshape(-1, 3, 3, *products.shape[2:]) + torch.einsum(
        "b,ij->bij", stiff, torch.eye(3, device=stiff.device)
    ).reshape(-1, 3, 3, 1, 1, 1)
    first, second, third = matrix.unbind(dim=1)
    adjugate = torch.stack(
        [
            torch.linalg.cross(second, third, dim=1),
            torch.linalg.cross(third, first, dim=1),
            torch.linalg.cross(first, second, dim=1),
        ],
        dim=1,
    )
    determinant = (first * adjugate[:, 0]).sum(dim=1, keepdim=True)
    return (adjugate * sides[:, None]).sum(dim=2) / determinant.clamp_min(LEAST_DETERMINANT)
