"""The default model for volumes of anything: any contrast, any rotation.

The global alignment comes first. A deformable result bends the affine one until structures meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import ModelInfo, Option, Scalar
from retreg.transforms import Affine
from retreg_server.registration.keymorph.initial_maps import Suggest, no_suggestions
from retreg_server.registration.model import Estimate, Stages, linear_matrix
from retreg_server.registration.numerics.robust_weights import Linear

if TYPE_CHECKING:
    from retreg_server.registration.volume.volume_pair import PreparedVolume

CITATION = (
    "Heinrich et al. 2013 (MIND-SSC); Studholme et al. 1999 (NMI); Alexa 2022 "
    "(super-Fibonacci rotations); Siebert et al. 2021 (ConvexAdam); Horn and Schunck 1981"
)


def _deformed(
    estimate: Estimate,
    prepared: tuple[PreparedVolume, PreparedVolume],
    grids: tuple[Grid, Grid],
    stages: Stages,
    phase: str,
) -> Estimate:
    """The estimate with its affines deformed, and the keypoints where they go now."""
    from retreg_server.registration.volume.deformation import deform

    matrices = linear_matrix(estimate.transform), linear_matrix(estimate.backward)
    with stages.stage("deforming", 0.4):
        deformed = deform(*prepared, *matrices, stages=stages, grids=grids, phase=phase)
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


class Family(NamedTuple):
    """linear: the map that is searched for. then: what becomes of its estimate.
    phase: the axis of a patient along which an echo-planar image is distorted, empty for none."""

    linear: Linear
    then: Callable[..., Estimate] | None = None
    phase: str = ""


FAMILIES = {
    "affine": Family("affine"),
    "similarity": Family("similarity"),
    "rigid": Family("rigid"),
    "deformable": Family("affine", _deformed),
}
TRANSFORM = Option("transform", "Transform", "affine", tuple(FAMILIES))
PHASE_ENCODING = Option(
    "phase_encoding", "Distorted along (EPI)", "none", ("none", "LR", "AP", "SI"),
    families=("deformable",),
)


def family_of(options: Mapping[str, Scalar]) -> Family:
    """The family that complete options ask for."""
    phase = str(options["phase_encoding"])
    family = FAMILIES[str(options["transform"])]
    return family if phase == "none" else family._replace(phase=phase)


def registered(
    fixed: Image,
    moving: Image,
    family: Family,
    suggest: Suggest,
    stages: Stages,
    initial: Affine | None = None,
) -> Estimate:
    """Both directions of the family. Raises RegistrationError when an image shows no object.

    suggest: gives starts beside those of the search, where it is in doubt. initial: the map near
    which alone is searched.
    """
    # torch takes a second to load: who asks for the description alone does not wait for it.
    from retreg_server.registration.volume.global_alignment import (
        global_search,
        linear_estimate,
        search_near,
    )
    from retreg_server.registration.volume.volume_pair import PreparedVolume, VolumePair

    with stages.stage("finding the objects", 0.05):
        prepared = PreparedVolume.of(fixed, "fixed"), PreparedVolume.of(moving, "moving")
        pair = VolumePair.of(*prepared)
    with stages.part(0.5 if family.then else 0.9):
        if initial is None:
            find = global_search(pair, family.linear)
        else:
            find = search_near(pair, family.linear, initial.moving_from_fixed)
        estimate = linear_estimate(pair, family.linear, find, suggest, stages)
    if family.then:
        estimate = family.then(estimate, prepared, (fixed.grid, moving.grid), stages, family.phase)
    return estimate


class AutoVolume:
    """Registration of two volumes of anything."""

    info = ModelInfo(
        name="auto-volume",
        title="Volume, automatic (any anatomy, any contrast, any rotation)",
        kinds=("volume",),
        subject="anatomy",
        produces=tuple(FAMILIES),
        options=(TRANSFORM, PHASE_ENCODING),
        citation=CITATION,
    )

    def load(self) -> None:
        """Nothing is read: there is no network."""

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], stages: Stages
    ) -> Estimate:
        """See Model.estimate. Raises RegistrationError when an image shows no object."""
        family = family_of(options)
        return registered(fixed, moving, family, no_suggestions, stages)

    def estimate_near(
        self,
        initial: Affine,
        fixed: Image,
        moving: Image,
        options: Mapping[str, Scalar],
        stages: Stages,
    ) -> Estimate:
        """See GuidedModel.estimate_near."""
        family = family_of(options)
        return registered(fixed, moving, family, no_suggestions, stages, initial)
