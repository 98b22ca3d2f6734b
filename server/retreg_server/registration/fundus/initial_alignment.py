"""Where a deformable model of the retina starts: with a map that aligns two pictures globally."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retreg.image import Image
from retreg_server.registration.fundus.affine_quadratic import refined_quadratic
from retreg_server.registration.fundus.features import Matches
from retreg_server.registration.fundus.global_alignment import LinearFit, global_alignment
from retreg_server.registration.fundus.keypoint_pairs import keypoint_pairs
from retreg_server.registration.fundus.pixel_maps import PixelPairs, QuadraticMap, linear_map
from retreg_server.registration.fundus.prepared_picture import PreparedPicture, prepared_picture
from retreg_server.registration.fundus.vessel_pyramid import agreement
from retreg_server.registration.fundus.world_transforms import pixel_matrix
from retreg_server.registration.keymorph.initial_maps import no_suggestions
from retreg_server.registration.model import Stages, affine_estimate, linear_matrix
from retreg_server.registration.preprocessing.retina_picture import retina_picture

DIAMETER = 768


@dataclass(frozen=True, eq=False)
class InitialAlignment:
    """Both pictures, the maps forward and backward, each found on its own, and pairs of points."""

    fixed: PreparedPicture
    moving: PreparedPicture
    forward: QuadraticMap
    backward: QuadraticMap
    pairs: PixelPairs
    evidence: dict[str, float]


def initial_alignment(name: str, fixed: Image, moving: Image, stages: Stages) -> InitialAlignment:
    """The start of that name, one of STARTS: auto-fundus, KeyMorph, or none at all.

    stages hears of the progress in the current part. Raises RegistrationError when a picture is
    blank or KeyMorph finds nothing, OptionError when its weights are not installed.
    """
    found, fits = _found(name, fixed, moving, stages)
    stages.at(0.9)
    bent = name != "identity"
    forward = _quadratic(fits[0], *found, bent)
    backward = _quadratic(fits[1], *found[::-1], bent)
    pairs = keypoint_pairs(*found, fits[0], forward)
    evidence = {
        "inliers": float(fits[0].inliers.sum()),
        "vessel_correlation": fits[0].agreement.correlation,
        "vessel_correlation_backward": fits[1].agreement.correlation,
        "overlap": fits[0].agreement.overlap,
    }
    return InitialAlignment(*found, forward, backward, pairs, evidence)


def _found(
    name: str, fixed: Image, moving: Image, stages: Stages
) -> tuple[tuple[PreparedPicture, PreparedPicture], tuple[LinearFit, LinearFit]]:
    """Both pictures, and the linear maps forward and backward."""
    pictures = retina_picture(fixed, "fixed", DIAMETER), retina_picture(moving, "moving", DIAMETER)
    if name == "auto":
        with stages.part(0.9):
            found = global_alignment(*pictures, stages, no_suggestions)
        return (found.fixed, found.moving), (found.forward, found.backward)
    pair = prepared_picture(pictures[0], "fixed"), prepared_picture(pictures[1], "moving")
    stages.at(0.3)
    forward, backward = _given(name, fixed, moving)
    return pair, (_linear(forward, *pair), _linear(backward, *pair[::-1]))


def _given(name: str, fixed: Image, moving: Image) -> tuple[np.ndarray, np.ndarray]:
    """World matrices (4, 4) forward and backward."""
    if name == "identity":
        return np.eye(4), np.eye(4)
    from retreg_server.registration.keymorph.correspondences import keymorph_for  # needs torch

    found = affine_estimate(keymorph_for(fixed), fixed, moving, Stages())
    return linear_matrix(found.transform), linear_matrix(found.backward)


def _linear(world: np.ndarray, fixed: PreparedPicture, moving: PreparedPicture) -> LinearFit:
    matrix = pixel_matrix(world, fixed.picture, moving.picture)
    nothing = np.zeros((0, 2))
    matches = Matches(nothing, nothing, np.zeros(0))
    agreed = agreement(fixed.levels[1], moving.levels[1], linear_map(matrix))
    return LinearFit(matrix, matches, np.zeros(0, bool), agreed)


def _quadratic(
    fit: LinearFit, fixed: PreparedPicture, moving: PreparedPicture, bent: bool
) -> QuadraticMap:
    if bent:
        return refined_quadratic(fit.moving_from_fixed, fixed.levels[1:], moving.levels[1:])
    size = np.array(fixed.vessels.shape[::-1], dtype=float)
    return QuadraticMap.from_affine(fit.moving_from_fixed, (size - 1) / 2, float(size.max()) / 2)
