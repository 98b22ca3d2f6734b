"""The results of the scene: which one is shown, and the one before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from RetRegLib.panel.message_line import MessageLine
from RetRegLib.panel.registration_section import family_title, refill
from RetRegLib.scene.choosing import choose_outcome
from RetRegLib.scene.outcome import Outcome
from RetRegLib.scene.saved_outcomes import saved_outcomes


class ResultsList:
    """All outcomes, one of which is active. on_chosen(outcome) is called when the user changes it.

    active: the outcome that moves the images, or None.
    """

    def __init__(self, ui: Any, line: MessageLine, on_chosen: Callable[[Outcome], None]) -> None:
        self._ui, self._on_chosen = ui, on_chosen
        self.outcomes: list[Outcome] = []
        self.active: Outcome | None = None
        self._before: Outcome | None = None
        ui.resultSelector.connect("currentIndexChanged(int)", line.guarded(self._selected))
        ui.flipButton.connect("clicked()", line.guarded(self.flip))
        self._draw()

    def find(self, scene: Any) -> bool:
        """Take up what the scene holds besides; whether a result became active by that."""
        found = saved_outcomes(scene, self.outcomes)
        self.outcomes += found
        if found and self.active is None:
            self.active = next((each for each in found if each.is_shown), None)
        self._draw()
        return bool(found) and self.active in found

    def add(self, outcome: Outcome) -> None:
        """Take up a new outcome, which is active from now on, and hide what others show."""
        self.outcomes.append(outcome)
        self._activate(outcome)

    def drop(self, *gone: Outcome) -> None:
        """Forget outcomes; when the active one is among them, another one takes its place."""
        self.outcomes = [each for each in self.outcomes if each not in gone]
        if self._before in gone:
            self._before = None
        if self.active in gone:
            self.active, left = None, self.outcomes
            if left:
                self._activate(next((each for each in left if each.is_shown), left[-1]))
                self._before = None
        self._draw()

    def flip(self) -> None:
        """Back to the result that was shown before this one."""
        if self.active is not None and len(self.outcomes) > 1:
            there = self.outcomes.index(self.active)
            self._choose(self._before or self.outcomes[there - 1])

    def _selected(self, index: int) -> None:
        if 0 <= index < len(self.outcomes):
            self._choose(self.outcomes[index])

    def _choose(self, outcome: Outcome) -> None:
        if outcome is not self.active:
            self._activate(outcome)
            self._on_chosen(outcome)

    def _activate(self, outcome: Outcome) -> None:
        if outcome is not self.active:
            self._before, self.active = self.active, outcome
        choose_outcome(outcome, self.outcomes)
        self._draw()

    def _draw(self) -> None:
        index = self.outcomes.index(self.active) if self.active is not None else -1
        titles = [f"{n}. {title(each)}" for n, each in enumerate(self.outcomes, 1)]
        refill(self._ui.resultSelector, titles, index)
        self._ui.flipButton.enabled = len(self.outcomes) > 1


def title(outcome: Outcome) -> str:
    """A result in a few words: images, model, transform, verdict."""
    made, words = outcome.result.provenance, {"accept": _("accepted"), "fail": _("failed")}
    images = [node.GetName() or "?" for node in (outcome.moving, outcome.fixed)]
    parts = (
        _("{moving} to {fixed}").format(moving=images[0], fixed=images[1]),
        str(made.get("model", "")),
        family_title(str(made.get("options", {}).get("transform", ""))),
        words.get(outcome.result.quality.verdict, _("check")),
    )
    return " · ".join(part for part in parts if part)
