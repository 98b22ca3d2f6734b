"""Which models can be used here, and why others cannot."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from retreg.messages import ModelInfo
from retreg_server.registration.registry import FACTORIES, get_model
from retreg_server.registration.warm_up import warm_up

logger = logging.getLogger(__name__)


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
    for name in FACTORIES:
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
