"""The options that models share, and their values from text; needs no network."""

from __future__ import annotations

from retreg.errors import OptionError
from retreg.messages import ModelInfo, Option, Scalar

DEVICES = ("auto", "cpu", "cuda")  # on which networks can run; auto is CUDA where there is one
SMOOTHPROPER = "Zhang et al. 2025, IPMI (SmoothProper)"  # the citation of its models
SMOOTHING = Option("smoothing", "Smoothing of the spline", 0.1, minimum=0.0, families=("tps",))
STARTS = ("auto", "keymorph", "identity")  # of the models with a network for fields


def parsed_option(model: ModelInfo, name: str, text: str) -> Scalar:
    """The value of an option from its text. Raises OptionError."""
    default = next((option.default for option in model.options if option.name == name), text)
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise OptionError(f"{name} = {text!r} was given; use true or false.")
        return text.lower() == "true"
    try:
        return type(default)(text)
    except ValueError:
        raise OptionError(f"{name} = {text!r} was given; a number was expected.") from None



def field_options(families: tuple[str, ...]) -> tuple[Option, ...]:
    """The options of a model that offers these transform families, the first by default."""
    return (
        Option("transform", "Transform", families[0], families),
        Option("start", "Global alignment before it", STARTS[0], STARTS),
        Option("refine", "Refine the field on these images", True, families=("deformable",)),
        Option("device", "Device", DEVICES[0], DEVICES),
    )
