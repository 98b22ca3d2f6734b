"""Where a part lies in the whole: half a head, a crop, a slab, turned by up to about 45 degrees.

The middle of a part is not that of the whole, so places are searched beside rotations. A part that
is turned any further is left to the search over all rotations.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from retreg_server.registration.volume.affine_gauss_newton import Aligner, generators
from retreg_server.registration.volume.rotation_search import (
    Jitter,
    climb,
    icosahedron,
    uniform_rotations,
)
from retreg_server.registration.volume.volume_pair import VolumePair

TURN_DEG = 50.0  # of the rotations that are tried
TURNS = 3000  # over all of them, of which those within TURN_DEG are tried
STEP = 0.3  # of the radius of the part, between places
WIDE_DEG, WIDE_STEP = 30.0, 0.8  # from which Gauss-Newton finds its way
WIDE_STARTS = 250  # of these, the most likely by grey levels
CLIMBERS, COPIES = 16, 24
APART = 0.25  # of the radius: how far apart two candidates put the part
PER_KEPT = 100  # starts that are looked at for each that is kept
# Points that are compared, iterations of Gauss-Newton, and how many starts are kept.
ROUNDS = ((1000, 2, 24), (4000, 3, 8), (4000, 5, 3))


def part_starts(pair: VolumePair) -> np.ndarray:
    """(n, 4, 4) rigid target_from_domain, best first, for a domain that is a part of the target."""
    climbed = _by_grey_levels(pair)
    wide = np.radians(WIDE_DEG) * np.concatenate([np.zeros((1, 3)), icosahedron()])
    placed = _placed(pair, Rotation.from_rotvec(wide).as_matrix(), WIDE_STEP)
    likely = np.argsort(-pair.samples.scores(placed), kind="stable")[:WIDE_STARTS]
    return _by_descriptors(pair, np.concatenate([climbed, placed[likely]]))


def _by_grey_levels(pair: VolumePair) -> np.ndarray:
    """The best of many places and rotations by normalised mutual information, improved."""
    rotations = uniform_rotations(TURNS)
    near = Rotation.from_matrix(rotations).magnitude() < np.radians(TURN_DEG)
    starts = _placed(pair, rotations[near], STEP)
    radius_mm, samples = pair.domain.radius_mm, pair.samples
    best = _apart(pair, starts, samples.thinned(4).scores(starts), 4 * CLIMBERS)
    best = best[np.argsort(-samples.scores(best), kind="stable")[:CLIMBERS]]
    jitter = Jitter(0.15, 0.0, 0.12 * radius_mm, pair.domain.core)
    return _apart(pair, *climb(samples, best, jitter, range(6), COPIES), CLIMBERS)


def _by_descriptors(pair: VolumePair, starts: np.ndarray) -> np.ndarray:
    """A few of the starts that Gauss-Newton leads to the most alike descriptors."""
    level = pair.levels[pair.settling_levels[0]]
    steps = generators("rigid", pair.domain.core, pair.domain.radius_mm)
    for points, iterations, kept in ROUNDS:
        coarse = Aligner(level, points)
        starts = np.stack([coarse.refine(start, steps, iterations) for start in starts])
        alike = np.array([-coarse.distance(start) for start in starts])
        starts = _apart(pair, starts, alike, kept)
    return starts


def _placed(pair: VolumePair, rotations: np.ndarray, step: float) -> np.ndarray:
    """(n, 4, 4): for each rotation, all places of the part in the box around the whole.

    step: of the radius of the part, at most, between neighbouring places.
    """
    part, whole = _points(pair), _points(pair.swapped)
    low, high = whole.min(axis=0), whole.max(axis=0)
    starts = []
    for rotation in rotations:
        turned = part @ rotation.T
        first, last = turned.min(axis=0), turned.max(axis=0)
        room = np.maximum((high - low) - (last - first), 0)
        counts = 1 + np.ceil(room / (step * pair.domain.radius_mm)).astype(int)
        lines = [np.linspace(-0.5, 0.5, n) if n > 1 else np.zeros(1) for n in counts]
        places = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 3)
        placed = np.tile(np.eye(4), (len(places), 1, 1))
        placed[:, :3, :3] = rotation
        placed[:, :3, 3] = (low + high - first - last) / 2 + room * places
        starts.append(placed)
    return np.concatenate(starts)


def _points(pair: VolumePair) -> np.ndarray:
    """(n, 3) LPS mm of the object in the domain, coarsely."""
    level = pair.levels[4].domain
    shown: np.ndarray = level.voxel_centres()[level.tensor[0, 1].ravel().numpy() > 0.5]
    return shown


def _apart(pair: VolumePair, starts: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """The best of the starts (n, 4, 4), best first, no two of which put the part at one place."""
    order = np.argsort(-scores, kind="stable")[: PER_KEPT * count]
    frame = pair.domain.radius_mm * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    frame = np.column_stack([frame + pair.domain.core, np.ones(len(frame))])
    where = np.einsum("nij,pj->npi", starts[order, :3], frame, optimize=True)
    kept: list[int] = []
    left = np.ones(len(order), dtype=bool)
    while len(kept) < count and left.any():
        number = int(left.argmax())  # the first that is left
        kept.append(int(order[number]))
        gaps = np.linalg.norm(where - where[number], axis=2).mean(axis=1)
        left &= gaps > APART * pair.domain.radius_mm
    return starts[kept]
