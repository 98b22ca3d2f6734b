"""What the models with a network for fields share: their options, and where they start."""

from __future__ import annotations

from retreg.errors import OptionError
from retreg.image import Image
from retreg.messages import Option
from retreg_server.registration.base import Estimate, Model, Stopwatch
from retreg_server.registration.devices import DEVICES
from retreg_server.registration.keymorph_candidates import installed_keymorph
from retreg_server.registration.options import complete_options

STARTS = ("auto", "keymorph", "identity")


def field_options(families: tuple[str, ...]) -> tuple[Option, ...]:
    """The options of a model that offers these transform families, the first by default."""
    return (
        Option("transform", "Transform", families[0], families),
        Option("start", "Global alignment before it", STARTS[0], STARTS),
        Option("refine", "Refine the field on these images", True),
        Option("device", "Device", DEVICES[0], DEVICES),
    )


def keymorph_for(image: Image) -> Model:
    """KeyMorph for images of this kind. Raises OptionError when its weights are not installed."""
    model = installed_keymorph(image)
    if model is None:
        name = "keymorph-fundus" if image.is_picture else "keymorph-brain"
        raise OptionError(
            f"The start keymorph needs the weights of {name}, which are not installed; use the "
            "start auto."
        )
    return model


def affine_estimate(model: Model, fixed: Image, moving: Image, watch: Stopwatch) -> Estimate:
    """What a model makes of two images when asked for an affine, else with its defaults."""
    options = complete_options(model.info, {"transform": "affine"})
    return model.estimate(fixed, moving, options, watch)
