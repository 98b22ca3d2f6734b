"""The default model for volumes of heads and brains: any contrast, any rotation.

The global alignment comes first. When the keypoints of the network are asked for, its maps are
tried in any case. A deformable result bends the affine one until structures meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import ModelInfo, Option, Scalar
from retreg_server.registration.keymorph.initial_maps import (
    KEYPOINTS,
    correspondences_if_wanted,
    suggestions,
)
from retreg_server.registration.model import Estimate, Stages, linear_matrix
from retreg_server.registration.numerics.robust_weights import Linear

if TYPE_CHECKING:
    from retreg_server.registration.brain.volume_pair import PreparedVolume

FAMILIES = ("affine", "similarity", "rigid")
DEFORMABLE = "deformable"


class AutoBrain:
    """Registration of two brain or head volumes."""

    info = ModelInfo(
        name="auto-brain",
        title="Brain, automatic (any contrast, any rotation)",
        kinds=("volume",),
        subject="head",
        produces=(*FAMILIES, DEFORMABLE),
        options=(
            Option("transform", "Transform", "affine", (*FAMILIES, DEFORMABLE)),
            KEYPOINTS,
        ),
        citation=(
            "Heinrich et al. 2013 (MIND-SSC); Studholme et al. 1999 (NMI); Alexa 2022 "
            "(super-Fibonacci rotations); Siebert et al. 2021 (ConvexAdam); Horn and Schunck 1981"
        ),
    )

    def load(self) -> None:
        """Nothing is read: there is no network."""

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], stages: Stages
    ) -> Estimate:
        """See Model.estimate. Raises RegistrationError when an image shows no object.

        With keypoints = network, also OptionError or FileError when its weights cannot be used.
        """
        # torch takes a second to load: who asks for the description alone does not wait for it.
        from retreg_server.registration.brain.global_alignment import linear_estimate
        from retreg_server.registration.brain.volume_pair import PreparedVolume, VolumePair

        seen = correspondences_if_wanted(options["keypoints"], fixed, moving, stages, 0.05)
        advice = seen.suggestions if seen else partial(suggestions, fixed, moving)
        deformable = options["transform"] == DEFORMABLE
        family = cast(Linear, "affine" if deformable else options["transform"])
        with stages.stage("finding the heads", 0.05):
            prepared = PreparedVolume.of(fixed, "fixed"), PreparedVolume.of(moving, "moving")
            pair = VolumePair.of(*prepared)
        with stages.part(0.5 if deformable else 0.9):
            estimate = linear_estimate(pair, family, partial(advice, family), stages)
        if deformable:
            with stages.stage("deforming", 0.4):
                estimate = _deformed(estimate, prepared, (fixed.grid, moving.grid), stages)
        return seen.described(estimate) if seen else estimate


def _deformed(
    estimate: Estimate,
    prepared: tuple[PreparedVolume, PreparedVolume],
    grids: tuple[Grid, Grid],
    stages: Stages,
) -> Estimate:
    """The estimate with its affines deformed, and the keypoints where they go now."""
    from retreg_server.registration.brain.deformation import deform

    matrices = linear_matrix(estimate.transform), linear_matrix(estimate.backward)
    deformed = deform(*prepared, *matrices, stages=stages, grids=grids)
    marks = estimate.moving_keypoints
    moved = deformed.forward(estimate.fixed_keypoints.points)
    return replace(
        estimate,
        transform=deformed.forward,
        moving_keypoints=replace(marks, points=moved),
        backward=deformed.backward,
        evidence={**estimate.evidence, **deformed.evidence},
        undeformed=estimate.transform,
    )
