"""Runs one registration: options, model, the other direction, quality, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version

from retreg.errors import InputError, OptionError
from retreg.image import Image
from retreg.messages import ModelInfo, RegistrationRequest, RegistrationResult, Scalar
from retreg_server.registration.base import Estimate, Model, Report, Stopwatch, silent
from retreg_server.registration.quality import assess
from retreg_server.registration.registry import get_model


def register(request: RegistrationRequest, report: Report = silent) -> RegistrationResult:
    """Answer a request.

    Raises OptionError or InputError for a request that cannot be run, RegistrationError when the
    model finds nothing, and whatever report raises.
    """
    model = get_model(request.model)
    _check_images(model.info, request.fixed, request.moving)
    options = complete_options(model.info, request.options)
    watch = Stopwatch(report)
    estimate = _both_ways(model, request, options, watch)
    with watch.stage("quality", 0.9):
        quality = assess(request.fixed, request.moving, estimate)
    provenance = {
        "model": request.model,
        "options": options,
        "version": version("retreg"),
        "weights_sha256": model.info.weights_sha256,
        "seconds": watch.seconds,
    }
    return RegistrationResult(
        estimate.transform,
        estimate.fixed_keypoints,
        estimate.moving_keypoints,
        quality,
        provenance,
    )


def complete_options(info: ModelInfo, given: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The options of the model with its defaults filled in, the transform family among them.

    Raises OptionError for an option or a value that the model does not know.
    """
    known = {option.name: option for option in info.options}
    unknown = set(given) - set(known)
    if unknown:
        raise OptionError(
            f"{info.name} has no option {', '.join(sorted(unknown))}; it has "
            f"{', '.join(known)}."
        )
    return {
        name: option.checked(given[name]) if name in given else option.default
        for name, option in known.items()
    }


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
