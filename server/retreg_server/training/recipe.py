"""How the weights of a model are made. The registry names the recipe of each model that learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from retreg.errors import OptionError
from retreg_server.registration.registry import MODELS
from retreg_server.training.export import Bundle
from retreg_server.training.loop import Task


@dataclass(frozen=True)
class TrainingOrder:
    """What `retreg train` was asked for; a recipe reads what it needs.

    data: label maps or vessel masks; None only to export a run. out: the folder of the run.
    look_at: real images whose errors are logged, and never learned from.
    """

    data: Path | None
    out: Path
    keypoints: int
    seed: int
    device: str
    look_at: Path | None = None
    objective: str = "keypoints"
    layer_steps: int | None = None

    @property
    def folder(self) -> Path:
        """The folder with the data. Raises OptionError when none was given."""
        if self.data is None:
            raise OptionError(
                "Training needs --data DIR, the folder with label maps or vessel masks."
            )
        return self.data


@dataclass(frozen=True)
class Recipe:
    """task: what is trained. bundle: what the card of the weights says, from the order, the options
    of the training by name, and the hardware in words."""

    task: Callable[[TrainingOrder], Task[Any]]
    bundle: Callable[[TrainingOrder, dict[str, Any], str], Bundle]


def recipe_of(model: str) -> Recipe:
    """The recipe of a model that learns."""
    module, name = MODELS[model].recipe.split(":")
    found: Recipe = getattr(import_module(f"retreg_server.training.{module}"), name)
    return found
