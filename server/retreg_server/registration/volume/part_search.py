"""Where a part lies in the whole: half a head, a crop, a slab, turned by up to about 45 degrees.

The middle of a part is not that of the whole, so places are searched beside rotations. A part that
is turned any further is left to the search over all rotations.
"""

from __future__ import annotations

from itertools import product

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
STEP = 0.25  # of the radius of the part, between places
WIDE_DEG, WIDE_STEP = 30.0, 0.8  # from which Gauss-Newton finds its way
WIDE_STARTS = 500  # of these, the most likely by grey levels
CLIMBERS, COPIES = 16, 24
APART = 0.25  # of the radius: how far apart two candidates put the part
POINTS = 6000


def part_starts(pair: VolumePair) -> np.ndarray:
    """(n, 4, 4) rigid target_from_domain, best first, for a domain that is a part of the target."""
    climbed = _by_grey_levels(pair)
    wide = np.radians(WIDE_DEG) * np.concatenate([np.zeros((1, 3)), icosahedron()])
    placed = _placed(pair, Rotation.from_rotvec(wide).as_matrix(), WIDE_STEP)
    likely = np.argsort(-pair.samples.scores(placed), kind="stable")[:WIDE_STARTS]
    placed = placed[likely]
    return _by_descriptors(pair, np.concatenate([climbed, placed]))


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
    coarse = Aligner(pair.levels[pair.settling_levels[0]], POINTS)
    steps = generators("rigid", pair.domain.core, pair.domain.radius_mm)
    for iterations, kept in ((2, 24), (4, 8), (8, 3)):
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
        middle = (low + high - first - last) / 2
        for place in product(*(np.linspace(-0.5, 0.5, n) if n > 1 else [0.0] for n in counts)):
            start = np.eye(4)
            start[:3, :3], start[:3, 3] = rotation, middle + room * place
            starts.append(start)
    return np.stack(starts)


def _points(pair: VolumePair) -> np.ndarray:
    """(n, 3) LPS mm of the object in the domain, coarsely."""
    level = pair.levels[4].domain
    shown: np.ndarray = level.voxel_centres()[level.tensor[0, 1].ravel().numpy() > 0.5]
    return shown


def _apart(pair: VolumePair, starts: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """The best of the starts (n, 4, 4), best first, no two of which put the part at one place."""
    frame = pair.domain.radius_mm * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    frame = np.column_stack([frame + pair.domain.core, np.ones(len(frame))])
    where = np.einsum("nij,pj->npi", starts[:, :3], frame)
    kept: list[int] = []
    for number in np.argsort(-scores, kind="stable"):
        gaps = np.linalg.norm(where[kept] - where[number], axis=2).mean(axis=1)
        if (gaps > APART * pair.domain.radius_mm).all():
            kept.append(int(number))
        if len(kept) == count:
            break
    return starts[kept]
