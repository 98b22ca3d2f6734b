"""The default model for volumes of heads and brains: any contrast, any rotation.

The global alignment comes first. When the keypoints of the network are asked for, its maps are
tried in any case. A deformable result bends the affine one until structures meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import cast

from retreg.image import Image
from retreg.messages import ModelInfo, Option, Scalar
from retreg_server.registration.brain.deformation import Deformed, deform
from retreg_server.registration.brain.global_alignment import linear_estimate
from retreg_server.registration.brain.volume_pair import Scene, View
from retreg_server.registration.keymorph.initial_maps import KEYPOINTS, suggestions, view_if_wanted
from retreg_server.registration.model import Estimate, Stopwatch, linear_matrix
from retreg_server.registration.numerics.robust_weights import Linear

FAMILIES = ("affine", "similarity", "rigid")
DEFORMABLE = "deformable"
DEFORMING = "deforming"


class AutoBrain:
    """Registration of two brain or head volumes."""

    info = ModelInfo(
        name="auto-brain",
        title="Brain, automatic (any contrast, any rotation)",
        kinds=("volume",),
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

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], watch: Stopwatch
    ) -> Estimate:
        """See Model.estimate. Raises RegistrationError when an image shows no object.

        With keypoints = network, also OptionError or FileError when its weights cannot be used.
        """
        view = view_if_wanted(options["keypoints"], fixed, moving, watch, 0.0, 0.02)
        deformable = options["transform"] == DEFORMABLE
        family = cast(Linear, "affine" if deformable else options["transform"])
        with watch.stage("finding the heads", 0.02):
            views = View.of(fixed, "fixed"), View.of(moving, "moving")
            scene = Scene.of(*views)
        advice = view.suggestions if view else partial(suggestions, fixed, moving)
        estimate = linear_estimate(scene, family, partial(advice, family), watch)
        if deformable:
            with watch.stage(DEFORMING, 0.76):
                there, home = linear_matrix(estimate.transform), linear_matrix(estimate.backward)
                grids = fixed.grid, moving.grid
                deformed = deform(*views, there, home, progress=_deforming(watch), grids=grids)
                estimate = _bent(estimate, deformed)
        return view.described(estimate) if view else estimate


def _bent(estimate: Estimate, deformed: Deformed) -> Estimate:
    """The estimate with its affines deformed, and the keypoints where they go now."""
    marks = estimate.moving_keypoints
    return replace(
        estimate,
        transform=deformed.forward,
        moving_keypoints=replace(
            marks, points=deformed.forward(estimate.fixed_keypoints.points)
        ),
        backward=deformed.backward,
        evidence={**estimate.evidence, **deformed.evidence},
        undeformed=estimate.transform,
    )


def _deforming(watch: Stopwatch) -> Callable[[float], None]:
    return lambda done: watch.tick(DEFORMING, 0.76 + 0.13 * done)
