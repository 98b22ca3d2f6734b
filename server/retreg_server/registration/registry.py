"""The models by name. A new model is one file beside this one and one line here."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

from retreg.about import refuse_scans_as_photographs
from retreg.errors import OptionError
from retreg.image import Image
from retreg.messages import ModelInfo
from retreg_server.registration.base import Model

FACTORIES: dict[str, str] = {
    "auto-fundus": "auto_fundus:AutoFundus",
    "auto-brain": "auto_brain:AutoBrain",
    "fundus-sift": "fundus_sift:FundusSift",
}
LEARNED: dict[str, str] = {
    "keymorph-fundus": "keymorph:keymorph_fundus",
    "keymorph-brain": "keymorph:keymorph_brain",
    "smoothproper-fundus": "smoothproper:smoothproper_fundus",
    "smoothproper-brain": "smoothproper:smoothproper_brain",
    "voxelmorph-brain": "voxelmorph:voxelmorph_brain",
}
WEIGHTS = Path(__file__).with_name("weights")
FACTORIES |= {  # without its weights a model is not offered
    name: factory
    for name, factory in LEARNED.items()
    if (WEIGHTS / name / "configs" / "metadata.json").is_file()
}


@cache
def get_model(name: str) -> Model:
    """The model of that name, loaded on first use. Raises OptionError for an unknown name."""
    if name not in FACTORIES:
        raise OptionError(f"The model {name!r} is not known; use one of {', '.join(FACTORIES)}.")
    module, factory = FACTORIES[name].split(":")
    make: Callable[[], Model] = getattr(
        import_module(f"retreg_server.registration.{module}"), factory
    )
    return make()


def all_infos() -> tuple[ModelInfo, ...]:
    """The descriptions of all models, in the order of the registry."""
    return tuple(get_model(name).info for name in FACTORIES)


def default_model(fixed: Image, moving: Image) -> str:
    """The name of the model that fits the images: pictures or volumes.

    Raises InputError for single pictures that say that they are no photographs.
    """
    refuse_scans_as_photographs({"fixed": fixed, "moving": moving})
    return "auto-fundus" if fixed.is_picture else "auto-brain"
