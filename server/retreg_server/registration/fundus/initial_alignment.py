"""Where a deformable model of the retina starts: with a map that aligns two pictures globally."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from retreg.image import Image
from retreg_server.registration.fundus.affine_quadratic import refined_quadratic
from retreg_server.registration.fundus.features import Matches
from retreg_server.registration.fundus.global_alignment import LinearFit, global_fit
from retreg_server.registration.fundus.keypoint_pairs import PixelPairs, keypoint_pairs
from retreg_server.registration.fundus.pixel_maps import QuadraticMap, linear_map
from retreg_server.registration.fundus.prepared_picture import Side, vessel_side
from retreg_server.registration.fundus.vessel_pyramid import agreement
from retreg_server.registration.keymorph.correspondences import keymorph_for
from retreg_server.registration.keymorph.initial_maps import suggestions
from retreg_server.registration.model import Stopwatch, affine_estimate, linear_matrix
from retreg_server.registration.preprocessing.retina_picture import pixel_matrix, retina_picture

DIAMETER = 768
Tick = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class FundusStart:
    """Both pictures, the maps there and back, each found on its own, and pairs of points."""

    fixed: Side
    moving: Side
    forward: QuadraticMap
    backward: QuadraticMap
    pairs: PixelPairs
    evidence: dict[str, float]


def fundus_start(name: str, fixed: Image, moving: Image, tick: Tick) -> FundusStart:
    """The start of that name, one of STARTS: auto-fundus, KeyMorph, or none at all.

    tick is called with the fraction that is done. Raises RegistrationError when a picture is blank
    or KeyMorph finds nothing, OptionError when its weights are not installed.
    """
    pictures = retina_picture(fixed, "fixed", DIAMETER), retina_picture(moving, "moving", DIAMETER)
    if name == "auto":
        found = global_fit(*pictures, tick, partial(suggestions, fixed, moving, "affine"))
        sides, fits = (found.fixed, found.moving), (found.forward, found.backward)
    else:
        sides = vessel_side(pictures[0], "fixed"), vessel_side(pictures[1], "moving")
        tick(0.3)
        there, back = _given(name, fixed, moving)
        fits = _linear(there, *sides), _linear(back, *sides[::-1])
    tick(0.9)
    bent = name != "identity"
    forward = _quadratic(fits[0], sides[0], sides[1], bent)
    backward = _quadratic(fits[1], sides[1], sides[0], bent)
    pairs = keypoint_pairs(*sides, fits[0], forward)
    evidence = {
        "inliers": float(fits[0].inliers.sum()),
        "vessel_correlation": fits[0].agreement.correlation,
        "vessel_correlation_backward": fits[1].agreement.correlation,
        "overlap": fits[0].agreement.overlap,
    }
    return FundusStart(*sides, forward, backward, pairs, evidence)


def _given(name: str, fixed: Image, moving: Image) -> tuple[np.ndarray, np.ndarray]:
    """World matrices (4, 4) there and back."""
    if name == "identity":
        return np.eye(4), np.eye(4)
    found = affine_estimate(keymorph_for(fixed), fixed, moving, Stopwatch())
    return linear_matrix(found.transform), linear_matrix(found.backward)


def _linear(world: np.ndarray, fixed: Side, moving: Side) -> LinearFit:
    matrix = pixel_matrix(world, fixed.picture, moving.picture)
    nothing = np.zeros((0, 2))
    matches = Matches(nothing, nothing, np.zeros(0))
    agreed = agreement(fixed.levels[1], moving.levels[1], linear_map(matrix))
    return LinearFit(matrix, matches, np.zeros(0, bool), agreed)


def _quadratic(fit: LinearFit, fixed: Side, moving: Side, bent: bool) -> QuadraticMap:
    if bent:
        return refined_quadratic(fit.moving_from_fixed, fixed.levels[1:], moving.levels[1:])
    size = np.array(fixed.vessels.shape[::-1], dtype=float)
    return QuadraticMap.from_affine(fit.moving_from_fixed, (size - 1) / 2, float(size.max()) / 2)
