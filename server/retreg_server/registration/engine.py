"""Runs one registration: options, model, the other direction, quality, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

from retreg.errors import InputError, OptionError
from retreg.image import Image
from retreg.messages import ModelInfo, RegistrationRequest, RegistrationResult, Scalar
from retreg_server.registration.base import (
    Estimate,
    Model,
    Report,
    Stopwatch,
    SweepModel,
    silent,
)
from retreg_server.registration.options import complete_options
from retreg_server.registration.quality import assess
from retreg_server.registration.registry import get_model
from retreg_server.registration.scales import refuse_other_scale


def register(request: RegistrationRequest, report: Report = silent) -> RegistrationResult:
    """Answer a request.

    Raises OptionError or InputError for a request that cannot be run, RegistrationError when the
    model finds nothing, and whatever report raises.
    """
    model = get_model(request.model)
    _check_images(model.info, request.fixed, request.moving)
    options = complete_options(model.info, request.options)
    refuse_other_scale(options.get("transform"), request.fixed, request.moving)
    watch = Stopwatch(report)
    estimate = _both_ways(model, request, options, watch)
    return judged(model.info, request, options, estimate, watch)


def register_sweep(
    request: RegistrationRequest, smoothings: Sequence[float], report: Report = silent
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
    _check_images(model.info, request.fixed, request.moving)
    every = [
        complete_options(model.info, {**request.options, "smoothing": smoothing})
        for smoothing in smoothings
    ]
    refuse_other_scale(every[0].get("transform"), request.fixed, request.moving)
    watch = Stopwatch(report)
    estimates = model.sweep(request.fixed, request.moving, every[0], smoothings, watch)
    return tuple(
        judged(model.info, request, options, estimate, watch)
        for options, estimate in zip(every, estimates, strict=True)
    )


def judged(
    info: ModelInfo,
    request: RegistrationRequest,
    options: Mapping[str, Scalar],
    estimate: Estimate,
    watch: Stopwatch,
) -> RegistrationResult:
    """The result of an estimate: with its quality, and how it came about."""
    with watch.stage("quality", 0.9):
        quality = assess(request.fixed, request.moving, estimate)
    provenance = {
        "model": request.model,
        "options": options,
        "version": version("retreg"),
        "weights_sha256": info.weights_sha256,
        "seconds": dict(watch.seconds),
    }
    return RegistrationResult(
        estimate.transform,
        estimate.fixed_keypoints,
        estimate.moving_keypoints,
        quality,
        provenance,
        estimate.backward,
    )


def _check_images(info: ModelInfo, fixed: Image, moving: Image) -> None:
    for role, image in (("fixed", fixed), ("moving", moving)):
        kind = "picture" if image.is_picture else "volume"
        if kind not in info.kinds:
            raise InputError(
                f"The {role} image is a {kind}; {info.name} registers {' and '.join(info.kinds)}s."
            )


def _both_ways(
    model: Model, request: RegistrationRequest, options: Mapping[str, Scalar], watch: Stopwatch
) -> Estimate:
    estimate = model.estimate(request.fixed, request.moving, options, watch)
    if estimate.backward is not None:
        return estimate
    with watch.stage("other direction", 0.5):
        swapped = model.estimate(request.moving, request.fixed, options, Stopwatch())
    return replace(estimate, backward=swapped.transform)
