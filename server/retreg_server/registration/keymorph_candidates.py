"""What KeyMorph has to say to other models: further candidates for their transform."""

from __future__ import annotations

import logging

import numpy as np

from retreg.errors import DegeneratePointsError, FileError, RegistrationError
from retreg.fitting import fit
from retreg.image import Image
from retreg.messages import Scalar
from retreg.transforms import Affine
from retreg_server.registration.base import Stopwatch
from retreg_server.registration.keymorph import (
    KeyMorph,
    keymorph_brain,
    keymorph_fundus,
    size_mm,
    trusted_weights,
)
from retreg_server.registration.keypoint_matching import Match
from retreg_server.registration.robust_fit import Linear
from retreg_server.registration.weights import is_shipped

CANDIDATES = 3
APART = 0.05  # maps closer than this share of the size of the point set are the same
OPTIONS: dict[str, Scalar] = {"weights": "variance", "device": "cpu"}


def keymorph_matches(fixed: Image, moving: Image, again: bool = False) -> list[Match]:
    """Corresponding keypoints by likeness, or nothing when no weights are installed.

    again: from the second look, for an estimate of the other direction. Nothing is raised: what
    KeyMorph cannot see, or weights that are damaged, only leave the other model on its own.
    """
    try:
        model = installed_keymorph(fixed)
        if model is None:
            return []
        return model.matched(fixed, moving, OPTIONS, Stopwatch(), again)
    except (RegistrationError, FileError) as error:
        logging.getLogger(__name__).warning("KeyMorph gives no candidates: %s", error)
        return []


def keymorph_candidates(
    fixed: Image, moving: Image, family: Linear = "affine", again: bool = False
) -> list[np.ndarray]:
    """Matrices (4, 4) from the fixed to the moving world, most likely first, all different.

    Empty without weights; see keymorph_matches.
    """
    return candidates_of(keymorph_matches(fixed, moving, again), family)


def candidates_of(matches: list[Match], family: Linear = "affine") -> list[np.ndarray]:
    """The robust maps of at most CANDIDATES matches that lead to different places."""
    found: list[np.ndarray] = []
    for match in matches:
        if not np.isfinite(match.likeness):
            break
        try:
            weights = trusted_weights(match, family, True)
            transform = fit(family, match.fixed, match.moving, weights)
        except DegeneratePointsError:
            continue
        assert isinstance(transform, Affine)
        matrix = transform.moving_from_fixed
        known = [_distance(matrix, other, match.fixed) for other in found]
        if min(known, default=np.inf) > APART * size_mm(match.moving):
            found.append(matrix)
    return found[:CANDIDATES]


def installed_keymorph(image: Image) -> KeyMorph | None:
    """KeyMorph for images of this kind, None without weights. Raises FileError when damaged."""
    if image.is_picture:
        return keymorph_fundus() if is_shipped("keymorph-fundus") else None
    return keymorph_brain() if is_shipped("keymorph-brain") else None


def _distance(first: np.ndarray, second: np.ndarray, points: np.ndarray) -> float:
    difference = first - second
    return float(np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())
