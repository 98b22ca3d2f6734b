"""Runs one registration: options, model, the other direction, quality, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np

from retreg.about import notes_on, notes_on_sameness
from retreg.errors import OptionError
from retreg.image import Image
from retreg.masks import share_counted
from retreg.messages import ModelInfo, RegistrationRequest, RegistrationResult, Scalar
from retreg.progress import Progress, no_progress
from retreg_server.registration.model import (
    Estimate,
    GuidedModel,
    Model,
    SegmentationModel,
    Stages,
    SweepModel,
)
from retreg_server.registration.quality.assess import assess
from retreg_server.registration.registry import get_model
from retreg_server.registration.subject import SUBJECTS, refuse_other_scale, subject_of

QUALITY_SHARE = 0.1  # of the work
SEGMENTS_VESSELS, VESSEL = "segreg-fundus", 0.5  # the model, and from which probability


def register(request: RegistrationRequest, progress: Progress = no_progress) -> RegistrationResult:
    """Answer a request.

    Raises OptionError or InputError for a request that cannot be run, RegistrationError when the
    model finds nothing, and whatever report raises.
    """
    model = get_model(request.model)
    options = model.info.complete(request.options)
    scale, request = SUBJECTS[model.info.subject].at_common_scale(model.info, request)
    refuse_other_scale(options.get("transform"), request.fixed, request.moving)
    stages = Stages(progress)
    estimate = _both_ways(model, request, options, stages)
    return scale.restored(judged(model.info, request, options, estimate, stages))


def register_sweep(
    request: RegistrationRequest, smoothings: Sequence[float], progress: Progress = no_progress
) -> tuple[RegistrationResult, ...]:
    """One result for each of smoothings, from one run of the model on the images.

    Raises OptionError when the model cannot do that, and otherwise as register.
    """
    model = get_model(request.model)
    if not isinstance(model, SweepModel):
        raise OptionError(
            f"{request.model} takes one smoothing at a time; a sweep needs a model that aligns "
            "keypoints, such as keymorph-brain or keymorph-fundus."
        )
    every = [
        model.info.complete({**request.options, "smoothing": smoothing})
        for smoothing in smoothings
    ]
    scale, request = SUBJECTS[model.info.subject].at_common_scale(model.info, request)
    refuse_other_scale(every[0].get("transform"), request.fixed, request.moving)
    stages = Stages(progress)
    with stages.part(1 - QUALITY_SHARE):
        estimates = model.sweep(request.fixed, request.moving, every[0], smoothings, stages)
    return tuple(
        scale.restored(judged(model.info, request, options, estimate, stages))
        for options, estimate in zip(every, estimates, strict=True)
    )


def judged(
    info: ModelInfo,
    request: RegistrationRequest,
    options: Mapping[str, Scalar],
    estimate: Estimate,
    stages: Stages,
) -> RegistrationResult:
    """The result of an estimate: with its quality, and how it came about."""
    fixed, moving = request.fixed, request.moving
    with stages.stage("quality", QUALITY_SHARE):
        measure = SUBJECTS[info.subject].measured(fixed, moving, estimate.seen)
        quality = assess(measure, fixed.grid, moving.grid, estimate)
    provenance: dict[str, Any] = {
        "model": request.model,
        "options": options,
        "version": version("retreg"),
        "weights_sha256": info.weights_sha256,
        "seconds": dict(stages.seconds),
    }
    if fixed.counted is not None or moving.counted is not None:
        counted = {"fixed": share_counted(fixed), "moving": share_counted(moving)}
        provenance["counted"] = counted
    if request.initial is not None:
        provenance["initial"] = request.initial.moving_from_fixed.tolist()
    return RegistrationResult(
        estimate.transform,
        estimate.fixed_keypoints,
        estimate.moving_keypoints,
        quality,
        provenance,
        estimate.backward,
        (*notes_on(fixed, moving), *notes_on_sameness(fixed, moving)),
    )


def _both_ways(
    model: Model, request: RegistrationRequest, options: Mapping[str, Scalar], stages: Stages
) -> Estimate:
    with stages.part(1 - QUALITY_SHARE):
        estimate = _estimated(model, request, options, stages)
    if estimate.backward is not None:
        return estimate
    swapped = model.estimate(request.moving, request.fixed, options, Stages())
    return replace(estimate, backward=swapped.transform)


def _estimated(
    model: Model, request: RegistrationRequest, options: Mapping[str, Scalar], stages: Stages
) -> Estimate:
    images = request.fixed, request.moving
    if request.initial is None:
        return model.estimate(*images, options, stages)
    if not isinstance(model, GuidedModel):
        raise OptionError(
            f"{request.model} takes no initial transform; leave it, or use auto-fundus, auto-brain "
            "or auto-volume."
        )
    return model.estimate_near(request.initial, *images, options, stages)


def vessel_labels(image: Image) -> Image:
    """The vessels of a picture of the retina as a label map on its pixels: uint8, 1 on vessels.

    Raises OptionError for an image that shows no retina, and where the network is not installed,
    RegistrationError for a blank picture.
    """
    if subject_of(image).name != "retina":
        raise OptionError("Only pictures of the retina have a map of vessels; use --maps alone.")
    model = get_model(SEGMENTS_VESSELS)
    assert isinstance(model, SegmentationModel)
    likely = model.vessels(image)
    return Image((likely.array > VESSEL).astype(np.uint8), likely.grid)
