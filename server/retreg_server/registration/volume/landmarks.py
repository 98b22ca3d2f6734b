"""Keypoints that support a transform: distinctive places and whether they match locally."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from retreg.errors import RegistrationError
from retreg.geometry import apply_matrix
from retreg_server.registration.numerics.farthest_points import farthest_points
from retreg_server.registration.numerics.spaces import sample
from retreg_server.registration.numerics.volume_features import mind_ssc
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
    domain_mind = mind_ssc(pair.domain.tensor[:, :1])
    target_mind = mind_ssc(warped[:, :1])
    usable = (pair.domain.tensor[0, 1] > 0.5) & (warped[0, 1] > 0.5)
    chosen = _spread(_distinctiveness(pair.domain.tensor[0, 0]), usable)
    if len(chosen) < 4:
        raise RegistrationError(
            "The two volumes hardly overlap where they fit best; check that both show the same "
            "part of the object."
        )
    similarity, agrees = _match(domain_mind, target_mind, chosen)
    points = apply_matrix(pair.domain.world_from_index, chosen[:, ::-1].astype(np.float64))
    return Landmarks(points, similarity, agrees)


def _distinctiveness(volume: torch.Tensor) -> torch.Tensor:
    """Smallest eigenvalue of the structure tensor in 3^3 blocks (Shi and Tomasi 1994)."""
    slopes = torch.gradient(volume)
    products = [slopes[a] * slopes[b] for a in range(3) for b in range(a, 3)]
    pooled = torch.nn.functional.avg_pool3d(torch.stack(products)[:, None], 3, 1, 1)[:, 0]
    xx, xy, xz, yy, yz, zz = pooled
    tensors = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], dim=-1)
    smallest: torch.Tensor = torch.linalg.eigvalsh(tensors.reshape(*volume.shape, 3, 3))[..., 0]
    return smallest


def _spread(score: torch.Tensor, usable: torch.Tensor) -> np.ndarray:
    """(n, 3) indices (k, j, i) of the best voxel per cell, then farthest-point sampling."""
    border = REACH + HALF
    allowed = torch.zeros_like(usable)
    inner = tuple(slice(border, n - border) for n in usable.shape)
    allowed[inner] = usable[inner]
    best, where = torch.nn.functional.max_pool3d(
        torch.where(allowed, score, -1.0)[None], 4, return_indices=True
    )
    flat = where.ravel()[best.ravel() > 0].numpy()
    if len(flat) == 0:
        return np.zeros((0, 3), dtype=np.int64)
    ranked = flat[np.argsort(-score.ravel().numpy()[flat], kind="stable")][: COUNT * 8]
    points = np.stack(np.unravel_index(ranked, score.shape), axis=1)
    return points[farthest_points(torch.from_numpy(points).double(), COUNT, first=0)]


def _match(
    domain: torch.Tensor, target: torch.Tensor, centres: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compare the block at each centre with all target blocks within REACH voxels."""
    wide = REACH + HALF
    windows = torch.stack([_cut(target, c, wide) for c in centres])
    blocks = torch.stack([_cut(domain, c, HALF) for c in centres])
    side = 2 * REACH + 1
    costs = torch.empty(len(centres), side, side, side)
    width = 2 * HALF + 1
    for k, j, i in np.ndindex(side, side, side):
        part = windows[:, :, k : k + width, j : j + width, i : i + width]
        costs[:, k, j, i] = (part - blocks).square().mean(dim=(1, 2, 3, 4))
    shifts = np.stack(np.unravel_index(costs.flatten(1).argmin(dim=1).numpy(), (side,) * 3), axis=1)
    agrees: np.ndarray = np.abs(shifts - REACH).max(axis=1) <= 1
    chance = (blocks - blocks.roll(1, dims=0)).square().mean()
    at_rest = costs[:, REACH, REACH, REACH]
    similarity = (1 - at_rest / chance.clamp_min(1e-9)).clamp(0, 1)
    return similarity.double().numpy(), agrees


def _cut(volume: torch.Tensor, centre: np.ndarray, half: int) -> torch.Tensor:
    k, j, i = (slice(int(c) - half, int(c) + half + 1) for c in centre)
    return volume[0, :, k, j, i]
