"""What the models with a network for fields share: their options, and where they start."""

from __future__ import annotations

from typing import cast

import numpy as np

from retreg.errors import OptionError
from retreg.image import Image
from retreg.messages import Option, Scalar
from retreg.transforms import Affine, Transform
from retreg_server.registration.base import Estimate, Model, Stopwatch
from retreg_server.registration.devices import DEVICES
from retreg_server.registration.keymorph import keymorph_brain, keymorph_fundus
from retreg_server.registration.weights import is_shipped

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
    name = "keymorph-fundus" if image.is_picture else "keymorph-brain"
    if not is_shipped(name):
        raise OptionError(
            f"The start keymorph needs the weights of {name}, which are not installed; use the "
            "start auto."
        )
    return keymorph_fundus() if image.is_picture else keymorph_brain()


def affine_estimate(model: Model, fixed: Image, moving: Image, watch: Stopwatch) -> Estimate:
    """What a model makes of two images when asked for an affine, else with its defaults."""
    options: dict[str, Scalar] = {each.name: each.default for each in model.info.options}
    return model.estimate(fixed, moving, {**options, "transform": "affine"}, watch)


def linear_matrix(transform: Transform | None) -> np.ndarray:
    """The matrix (4, 4) LPS mm of a transform that is an affine."""
    return cast(Affine, transform).moving_from_fixed
