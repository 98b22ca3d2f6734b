"""The models by name. A new model is one file and one line here, and weights if it learns."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from retreg.about import refuse_scans_as_photographs
from retreg.errors import OptionError
from retreg.image import Image
from retreg.messages import ModelInfo
from retreg_server.registration.model import Model
from retreg_server.registration.subject import refuse_other_kinds, subject_of

logger = logging.getLogger(__name__)
WEIGHTS = Path(__file__).with_name("weights")


class Entry(NamedTuple):
    """Where a model is made ("module:callable", below this folder), and how its weights are.

    recipe: "module:name" below training/, for a model that learns; it is offered where its weights
    are installed, in the folder of its name below WEIGHTS.
    """

    factory: str
    recipe: str = ""


MODELS: dict[str, Entry] = {
    "auto-fundus": Entry("fundus.auto:AutoFundus"),
    "auto-brain": Entry("volume.brain:AutoBrain"),
    "auto-volume": Entry("volume.auto:AutoVolume"),
    "fundus-sift": Entry("fundus.sift:FundusSift"),
    "keymorph-fundus": Entry("keymorph.model:keymorph_fundus", "keymorph_fundus:RECIPE"),
    "keymorph-brain": Entry("keymorph.model:keymorph_brain", "keymorph_brain:RECIPE"),
    "superpoint-fundus": Entry(
        "fundus.superpoint:SuperPointFundus", "superpoint_fundus:RECIPE"
    ),
    "superglue-fundus": Entry("fundus.superpoint:superglue_fundus", "superglue_fundus:RECIPE"),
    "smoothproper-fundus": Entry(
        "fundus.smoothproper:smoothproper_fundus", "field_recipes:SMOOTHPROPER_FUNDUS"
    ),
    "segreg-fundus": Entry("fundus.segreg:segreg_fundus", "segreg_fundus:RECIPE"),
    "smoothproper-brain": Entry(
        "volume.learned:smoothproper_brain", "field_recipes:SMOOTHPROPER_BRAIN"
    ),
    "voxelmorph-brain": Entry("volume.learned:voxelmorph_brain", "field_recipes:VOXELMORPH_BRAIN"),
}


def offered_models() -> tuple[str, ...]:
    """The names of the models that can be used here: what learns needs its weights."""
    return tuple(name for name, entry in MODELS.items() if not entry.recipe or _has(name))


def _has(name: str) -> bool:
    return (WEIGHTS / name / "configs" / "metadata.json").is_file()


@cache
def get_model(name: str) -> Model:
    """The model of that name, loaded on first use. Raises OptionError for an unknown name."""
    offered = offered_models()
    if name not in offered:
        raise OptionError(f"The model {name!r} is not known; use one of {', '.join(offered)}.")
    module, factory = MODELS[name].factory.split(":")
    make: Callable[[], Model] = getattr(
        import_module(f"retreg_server.registration.{module}"), factory
    )
    return make()


def default_model(fixed: Image, moving: Image) -> str:
    """The name of the model that fits what the images show.

    Raises InputError for a picture with a volume, before any model is loaded, and for single
    pictures that say that they are no photographs.
    """
    refuse_other_kinds({"fixed": fixed, "moving": moving})
    refuse_scans_as_photographs({"fixed": fixed, "moving": moving})
    return subject_of(fixed, moving).default_model


class Catalogue(NamedTuple):
    """The models that load, and the reason by name for those that do not."""

    models: tuple[ModelInfo, ...]
    failures: dict[str, str]


def load_catalogue(is_warm: bool = False) -> Catalogue:
    """Make every offered model; one that cannot be made does not take the others away.

    is_warm: also let each read its weights and make its first pass (Model.load).
    """
    models: list[ModelInfo] = []
    failures: dict[str, str] = {}
    for name in offered_models():
        try:
            model = get_model(name)
            if is_warm:
                model.load()
            models.append(model.info)
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}"
    return Catalogue(tuple(models), failures)


def usable_models() -> tuple[ModelInfo, ...]:
    """The models that can be made; the others are named in the log."""
    catalogue = load_catalogue()
    for name, reason in catalogue.failures.items():
        logger.error("The model %s cannot be used: %s.", name, reason)
    return catalogue.models
