"""Presets of the user: model, transform, smoothing and options under a name."""

from __future__ import annotations

import json
from collections.abc import Callable, MutableMapping
from typing import Any

from slicer.i18n import tr as _

from retreg.errors import InputError
from retreg.messages import Scalar
from RetRegLib.panel.message_line import MessageLine
from RetRegLib.panel.registration_section import RegistrationSection, refill

_KEY = "presets"
_FIELDS = ("model", "family", "smoothing", "options")
Preset = dict[str, Any]


class Presets:
    """The row where presets are chosen, saved and deleted; kept in the settings of the user."""

    def __init__(
        self,
        ui: Any,
        line: MessageLine,
        settings: MutableMapping[str, str],
        order: RegistrationSection,
        on_changed: Callable[[], None],
    ) -> None:
        self._ui, self._line, self._settings = ui, line, settings
        self._order, self._on_changed = order, on_changed
        ui.presetSelector.connect("activated(int)", line.guarded(self._chosen))
        ui.savePresetButton.connect("clicked()", line.guarded(self._save))
        ui.removePresetButton.connect("clicked()", line.guarded(self._remove))
        self._draw("")

    def _chosen(self, index: int) -> None:
        names = sorted(self._all())
        if 0 <= index < len(names):
            self._order.take(**self._all()[names[index]])
            self._on_changed()

    def _save(self) -> None:
        name = self._ui.presetSelector.currentText.strip()
        if not name:
            raise InputError(_("Type a name for the preset first."))
        parameters = self._order.parameters
        preset: dict[str, Scalar | Any] = {
            field: getattr(parameters, field) for field in _FIELDS
        }
        chosen = self._order.model
        preset |= {"model": chosen.name if chosen else "", "family": self._order.family}
        self._keep({**self._all(), name: preset})
        self._draw(name)
        self._line.say(_("The preset {name} is saved.").format(name=name))

    def _remove(self) -> None:
        name = self._ui.presetSelector.currentText.strip()
        self._keep({each: kept for each, kept in self._all().items() if each != name})
        self._draw("")

    def _all(self) -> dict[str, Preset]:
        """The presets by name; without those that are damaged."""
        try:
            kept = json.loads(self._settings.get(_KEY, "{}"))
            return {str(name): {f: each[f] for f in _FIELDS} for name, each in kept.items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            return {}

    def _keep(self, presets: dict[str, Preset]) -> None:
        self._settings[_KEY] = json.dumps(presets)

    def _draw(self, name: str) -> None:
        names = sorted(self._all())
        refill(self._ui.presetSelector, names, names.index(name) if name in names else -1)
