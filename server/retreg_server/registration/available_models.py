"""Which models can be used here, and why others cannot.

Also their first pass, made before anybody waits for it: it reads and checks the weights, and on a
CUDA device it compiles and chooses kernels, for tensors of the size that registrations use.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import ModelInfo
from retreg_server.registration.keymorph.model import KeyMorph
from retreg_server.registration.model import Model
from retreg_server.registration.registry import get_model, offered_models

logger = logging.getLogger(__name__)
SIZE_MM = 190.0
VOXELS, PIXELS = 32, 128


def warm_up(model: Model) -> None:
    """Show a keypoint network something, and read the weights of a network for fields.

    Nothing happens for a model without a network. Raises FileError when weights cannot be used.
    """
    if isinstance(model, KeyMorph):
        is_for_pictures = "picture" in model.info.kinds
        image = ball(PIXELS, 1) if is_for_pictures else ball(VOXELS, VOXELS)
        model.look(image, "first", False, "auto")
    else:
        getattr(model, "net", None)  # read when it is first asked for


def ball(side: int, planes: int) -> Image:
    """A patterned ball in (planes, side, side) voxels, or its middle plane: as large as a head."""
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in (planes, side, side)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    values = np.where(x**2 + y**2 + z**2 < 0.64, 120 + 60 * np.sin(9 * x) * np.cos(7 * y), 0)
    spacing_mm = SIZE_MM / side
    matrix = np.diag([spacing_mm, spacing_mm, spacing_mm, 1])
    return Image(values.astype(np.uint8)[None], Grid((side, side, planes), matrix))


@dataclass(frozen=True)
class Catalogue:
    """The models that load, and the reason by name for those that do not."""

    models: tuple[ModelInfo, ...]
    failures: dict[str, str]


def load_catalogue(is_warm: bool = False) -> Catalogue:
    """Load every registered model; one that cannot be loaded does not take the others away.

    is_warm: also let each network make its first pass.
    """
    models: list[ModelInfo] = []
    failures: dict[str, str] = {}
    for name in offered_models():
        try:
            model = get_model(name)
            if is_warm:
                warm_up(model)
            models.append(model.info)
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}"
    return Catalogue(tuple(models), failures)


def usable_models() -> tuple[ModelInfo, ...]:
    """The models that load; the others are named in the log."""
    catalogue = load_catalogue()
    for name, reason in catalogue.failures.items():
        logger.error("The model %s cannot be used: %s.", name, reason)
    return catalogue.models
