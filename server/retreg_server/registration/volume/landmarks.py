"""Keypoints that support a transform: distinctive places and whether they match locally."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from retreg.errors import RegistrationError
from retreg.geometry import apply_matrix
from retreg_server.registration.numerics.farthest_points import farthest_points
from retreg_server.registration.numerics.spaces import sample
from retreg_server.registration.numerics.volume_features import mind_ssc_at
from retreg_server.registration.volume.field_gauss_newton import boxes_of, grown
from retreg_server.registration.volume.volume_pair import VolumePairLevel

COUNT = 128
REACH = 3  # voxels searched around a keypoint, to each side
HALF = 2  # voxels of a block to each side of its middle


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Points (n, 3) in the domain's world and how well each of them matches.

    similarity: (n,) from 0 (as unlike as chance) to 1. agrees: (n,) bool, whether the best match
    nearby lies within one voxel of where the transform puts the point.
    """

    points: np.ndarray
    similarity: np.ndarray
    agrees: np.ndarray


def find_landmarks(pair: VolumePairLevel, target_from_domain: np.ndarray) -> Landmarks:
    """Up to 128 distinctive points that lie in both objects, checked by block matching.

    Raises RegistrationError when the objects do not overlap.
    """
    warped = sample(pair.target, pair.domain, target_from_domain)
    usable = (pair.domain.tensor[0, 1] > 0.5) & (warped[0, 1] > 0.5)
    chosen = _spread(_distinctiveness(pair.domain.tensor[0, 0], usable))
    if len(chosen) < 4:
        raise RegistrationError(
            "The two volumes hardly overlap where they fit best; check that both show the same "
            "part of the object."
        )
    similarity, agrees = _match(pair.domain.tensor[:, :1], warped[:, :1], chosen)
    points = apply_matrix(pair.domain.world_from_index, chosen[:, ::-1].astype(np.float64))
    return Landmarks(points, similarity, agrees)


def _distinctiveness(volume: torch.Tensor, usable: torch.Tensor) -> torch.Tensor:
    """Smallest eigenvalue of the structure tensor in 3^3 blocks (Shi and Tomasi 1994), by Smith's
    formula (1961); -1 where the volume (k, j, i) is not usable."""
    score = torch.full_like(volume, -1.0)
    for box in boxes_of(usable):
        wide, inner = grown(box, volume.shape, 2)
        slopes = torch.gradient(volume[wide])
        products = [slopes[a] * slopes[b] for a in range(3) for b in range(a, 3)]
        pooled = functional.avg_pool3d(torch.stack(products)[:, None], 3, 1, 1)[:, 0, *inner]
        score[box] = torch.where(usable[box], _smallest_eigenvalue(*pooled), -1.0)
    return score


def _smallest_eigenvalue(
    xx: torch.Tensor, xy: torch.Tensor, xz: torch.Tensor,
    yy: torch.Tensor, yz: torch.Tensor, zz: torch.Tensor,
) -> torch.Tensor:
    """Of the symmetric matrices with these entries."""
    mean = (xx + yy + zz) / 3
    x, y, z = xx - mean, yy - mean, zz - mean
    beside = xy.square() + xz.square() + yz.square()
    size = ((x.square() + y.square() + z.square() + 2 * beside) / 6).sqrt_().clamp_min_(1e-12)
    determinant = (
        x * (y * z - yz.square()) - xy * (xy * z - yz * xz) + xz * (xy * yz - y * xz)
    )
    angle = (determinant / size**3 / 2).clamp_(-1, 1).acos_() / 3
    return mean + 2 * size * torch.cos(angle + 2 * torch.pi / 3)


def _spread(score: torch.Tensor) -> np.ndarray:
    """(n, 3) indices (k, j, i) of the best voxel per cell, then farthest-point sampling."""
    border = REACH + HALF
    allowed = torch.full_like(score, -1.0)
    inner = tuple(slice(border, n - border) for n in score.shape)
    allowed[inner] = score[inner]
    best, where = functional.max_pool3d(allowed[None], 4, return_indices=True)
    flat = where.ravel()[best.ravel() > 0].numpy()
    if len(flat) == 0:
        return np.zeros((0, 3), dtype=np.int64)
    ranked = flat[np.argsort(-score.ravel().numpy()[flat], kind="stable")][: COUNT * 8]
    points = np.stack(np.unravel_index(ranked, score.shape), axis=1)
    return points[farthest_points(torch.from_numpy(points).double(), COUNT, first=0)]


def _match(
    domain: torch.Tensor, target: torch.Tensor, centres: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compare the block at each centre with all target blocks within REACH voxels.

    domain, target: (1, 1, k, j, i) on one lattice. centres: (n, 3) as (k, j, i).
    """
    windows = mind_ssc_at(target, _around(centres, REACH + HALF)).movedim(0, 1)
    blocks = mind_ssc_at(domain, _around(centres, HALF)).movedim(0, 1)
    # |window - block|^2 for every shift, of which the middle term is a convolution.
    own = functional.avg_pool3d(windows.square().mean(dim=1), 2 * HALF + 1, 1)
    both = functional.conv3d(windows.flatten(0, 1)[None], blocks, groups=len(blocks))[0]
    costs = own - 2 / blocks[0].numel() * both
    costs += blocks.square().mean(dim=(1, 2, 3, 4))[:, None, None, None]
    best = costs.flatten(1).argmin(dim=1).numpy()
    shifts = np.stack(np.unravel_index(best, costs.shape[1:]), axis=1)
    agrees: np.ndarray = np.abs(shifts - REACH).max(axis=1) <= 1
    chance = (blocks - blocks.roll(1, dims=0)).square().mean()
    at_rest = costs[:, REACH, REACH, REACH]
    similarity = (1 - at_rest / chance.clamp_min(1e-9)).clamp(0, 1)
    return similarity.double().numpy(), agrees


def _around(centres: np.ndarray, half: int) -> torch.Tensor:
    """(3, n, side, side, side) indices (k, j, i) of the cube around each centre (n, 3)."""
    cube = np.mgrid[-half : half + 1, -half : half + 1, -half : half + 1]
    return torch.from_numpy(centres.T[:, :, None, None, None] + cube[:, None])
