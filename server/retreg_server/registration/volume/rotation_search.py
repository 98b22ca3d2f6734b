"""Exhaustive search over all rotations by normalised mutual information on small volumes.

No start is needed and no rotation is out of reach. Candidates are matrices (n, 4, 4) from the
domain's world to the target's world in mm. NMI: Studholme et al., Pattern Recognition 1999.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch.nn import functional

from retreg_server.registration.numerics.spaces import TensorVolume

BINS = 16
CHUNK = 250_000  # samples taken at a time, which stay in the cache of a processor
FINER = 3  # times: voxels in which grey levels are looked up without interpolation


@dataclass(frozen=True, eq=False)
class MutualInformationSamples:
    """What a candidate is scored on.

    points: (n, 3) LPS mm in the domain. bins: (n,) their grey level there, 0 to BINS - 1.
    target: levels of the target as a tensor of one channel with values 0 to 1.
    """

    points: np.ndarray
    bins: torch.Tensor
    target: TensorVolume

    def scores(self, candidates: np.ndarray) -> np.ndarray:
        """NMI - 1 of every candidate (n, 4, 4); higher is better, 0 is independence.

        Points that fall outside the target see its empty surroundings, level 0.
        """
        per_chunk = max(1, CHUNK // len(self.points))
        parts = [
            self._scores(candidates[start : start + per_chunk])
            for start in range(0, len(candidates), per_chunk)
        ]
        return np.concatenate(parts)

    def thinned(self, step: int) -> MutualInformationSamples:
        """The same with every step-th point only: cheaper, but noisier."""
        return MutualInformationSamples(self.points[::step], self.bins[::step], self.target)

    def _scores(self, candidates: np.ndarray) -> np.ndarray:
        count, (levels, sizes, index_from_world) = len(candidates), self._table
        matrices = torch.from_numpy((index_from_world @ candidates)[:, :3].astype(np.float32))
        places = matrices.movedim(1, 0).flatten(0, 1) @ self._homogeneous
        k, j, i = (
            along.clamp_(0, size - 1).int()  # rounds down, which the matrix knows
            for along, size in zip(places.reshape(3, count, -1).flip(0), sizes, strict=True)
        )
        flat = k.mul_(sizes[1]).add_(j).mul_(sizes[2]).add_(i)
        seen = levels.index_select(0, flat.ravel()).reshape(flat.shape)
        number = torch.arange(count, dtype=torch.int32)[:, None]
        index = (number * BINS + self.bins.int()) * BINS + seen
        joint = torch.bincount(index.ravel(), minlength=count * BINS**2)
        return _nmi(joint.reshape(-1, BINS, BINS)).numpy()

    @cached_property
    def _homogeneous(self) -> torch.Tensor:
        """(4, n) the points, each with a 1."""
        ones = np.ones((len(self.points), 1))
        return torch.from_numpy(np.hstack([self.points, ones]).T.astype(np.float32))

    @cached_property
    def _table(self) -> tuple[torch.Tensor, tuple[int, int, int], np.ndarray]:
        """Grey levels of the target in finer voxels, with level 0 around them: all of them in one
        row, the sizes (k, j, i), and the matrix (4, 4) from the world to (i, j, k), rounded down.

        Looking one up is ten times as fast as interpolating it.
        """
        fine = functional.interpolate(
            self.target.tensor, scale_factor=FINER, mode="trilinear", align_corners=False
        )
        levels = (fine * (BINS - 1) + 0.5).clamp_(0, BINS - 1).to(torch.uint8)
        levels = functional.pad(levels, [1] * 6)[0, 0]
        k, j, i = levels.shape
        index_from_norm = np.diag([i / 2 - 1, j / 2 - 1, k / 2 - 1, 1.0])
        index_from_norm[:3, 3] = i / 2, j / 2, k / 2
        matrix = index_from_norm @ np.linalg.inv(self.target.world_from_norm)
        return levels.ravel(), (k, j, i), matrix


def _nmi(joint: torch.Tensor) -> torch.Tensor:
    """(H(a) + H(b)) / H(a, b) - 1 of joint histograms (n, bins, bins), all of as many samples."""
    samples = int(joint[0].sum())
    counts = torch.arange(samples + 1, dtype=torch.float64)
    bits = torch.xlogy(counts, counts)  # of each count: looked up, there are few

    def entropy(part: torch.Tensor) -> torch.Tensor:
        summed = bits.index_select(0, part.ravel()).reshape(part.shape).sum(dim=1)
        return np.log(max(samples, 1)) - summed / max(samples, 1)

    marginals = entropy(joint.sum(dim=1)) + entropy(joint.sum(dim=2))
    return marginals / entropy(joint.flatten(1)).clamp_min(1e-9) - 1


def uniform_rotations(count: int) -> np.ndarray:
    """(count, 3, 3) rotations spread evenly over SO(3) by super-Fibonacci spirals.

    Source: Alexa, CVPR 2022, algorithm 1.
    """
    s = np.arange(count) + 0.5
    alpha = 2 * np.pi * s / np.sqrt(2)
    beta = 2 * np.pi * s / 1.533751168755204288118041
    r, big_r = np.sqrt(s / count), np.sqrt(1 - s / count)
    quaternions = np.stack(
        [r * np.sin(alpha), r * np.cos(alpha), big_r * np.sin(beta), big_r * np.cos(beta)], axis=1
    )
    matrices: np.ndarray = Rotation.from_quat(quaternions).as_matrix()
    return matrices


def similarities(
    linear: np.ndarray, domain_centre: np.ndarray, target_centre: np.ndarray
) -> np.ndarray:
    """(n, 4, 4) that turn and scale by linear (n, 3, 3) and take one centre to the other."""
    matrices = np.tile(np.eye(4), (len(linear), 1, 1))
    matrices[:, :3, :3] = linear
    matrices[:, :3, 3] = target_centre - linear @ domain_centre
    return matrices


def shifted(candidates: np.ndarray, distance_mm: float) -> np.ndarray:
    """(13 n, 4, 4): the candidates, and each moved by distance_mm to twelve sides of the target."""
    moves = np.tile(np.eye(4), (13, 1, 1))
    moves[1:, :3, 3] = distance_mm * icosahedron()
    moved: np.ndarray = moves[:, None] @ candidates
    return moved.reshape(-1, 4, 4)


def icosahedron() -> np.ndarray:
    """(12, 3) unit vectors to its corners."""
    golden = (1 + np.sqrt(5)) / 2
    third = [(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    corners = np.concatenate([np.roll(third, turn, axis=1) for turn in range(3)])
    unit: np.ndarray = corners / np.linalg.norm(corners, axis=1, keepdims=True)
    return unit


def angles_deg(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Angle in degrees of the turn between rotations (..., 3, 3) that may carry a scale."""
    trace = np.einsum("...ij,...ij->...", first, second)
    scale = np.cbrt(np.linalg.det(first) * np.linalg.det(second))
    degrees: np.ndarray = np.degrees(np.arccos(np.clip((trace / scale - 1) / 2, -1, 1)))
    return degrees


def well_separated(
    candidates: np.ndarray, scores: np.ndarray, count: int, least_deg: float
) -> np.ndarray:
    """Indices of the best candidates, best first, no two within least_deg of each other."""
    kept: list[int] = []
    left = scores.copy()
    while len(kept) < count and np.isfinite(left.max()):
        kept.append(int(left.argmax()))
        near = angles_deg(candidates[:, :3, :3], candidates[kept[-1], :3, :3]) < least_deg
        left[near] = -np.inf
        left[kept[-1]] = -np.inf
    return np.array(kept)


@dataclass(frozen=True, eq=False)
class Jitter:
    """Sizes of the first round of random perturbations, in rad, relative and mm."""

    turn: float
    scale: float
    shift_mm: float
    centre: np.ndarray


def perturbed(
    candidates: np.ndarray, jitter: Jitter, shrink: float, copies: int, seed: int
) -> np.ndarray:
    """(n, copies, 4, 4): every candidate itself, then random neighbours about jitter.centre."""
    random = np.random.default_rng(seed)
    shape = (len(candidates), copies)
    turns = random.normal(size=(*shape, 3)) * jitter.turn * shrink
    scales = np.exp(random.normal(size=shape) * jitter.scale * shrink)
    shifts = random.normal(size=(*shape, 3)) * jitter.shift_mm * shrink
    turns[:, 0], scales[:, 0], shifts[:, 0] = 0, 1, 0
    local = Rotation.from_rotvec(turns.reshape(-1, 3)).as_matrix().reshape(*shape, 3, 3)
    linear = local * scales[..., None, None]
    steps = np.tile(np.eye(4), (*shape, 1, 1))
    steps[..., :3, :3] = linear
    steps[..., :3, 3] = jitter.centre - linear @ jitter.centre + shifts
    result: np.ndarray = candidates[:, None] @ steps
    return result


def climb(
    probe: MutualInformationSamples,
    candidates: np.ndarray,
    jitter: Jitter,
    rounds: range,
    copies: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Improve every candidate by random steps that shrink from round to round.

    Returns the candidates (n, 4, 4) and their scores (n,).
    """
    scores = np.zeros(len(candidates))
    for number in rounds:
        tries = perturbed(candidates, jitter, 0.62**number, copies, seed=number)
        values = probe.scores(tries.reshape(-1, 4, 4)).reshape(len(candidates), copies)
        best = values.argmax(axis=1)
        candidates = tries[np.arange(len(candidates)), best]
        scores = values[np.arange(len(candidates)), best]
    return candidates, scores
