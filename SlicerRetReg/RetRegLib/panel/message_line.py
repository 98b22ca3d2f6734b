"""The line of the panel that says what happens and what went wrong, one sentence at a time."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from retreg.errors import RetRegError
from RetRegLib.jobs import in_a_sentence

Tone = Literal["plain", "good", "doubtful", "bad"]

# Text and background together, so that they suit dark and light themes alike.
STYLES: dict[Tone, str] = {
    "plain": "padding: 4px;",
    "good": "padding: 6px; border-radius: 4px; color: #10391a; background: #d8f0dc;",
    "doubtful": "padding: 6px; border-radius: 4px; color: #4a3500; background: #ffedbd;",
    "bad": "padding: 6px; border-radius: 4px; color: #5c1010; background: #fbdcd9;",
}

log = logging.getLogger(__name__)


def paint(label: Any, text: str, tone: Tone) -> None:
    """Show a text in a label on the colour of its tone."""
    label.text = text
    label.styleSheet = STYLES[tone]


class MessageLine:
    """A label that is hidden while there is nothing to say.

    on_said(sentence) is called for each new one.
    """

    def __init__(self, label: Any, on_said: Callable[[str], None] | None = None) -> None:
        self._label, self._on_said = label, on_said
        self.clear()

    def say(self, sentence: str, tone: Tone = "plain") -> None:
        """Show a sentence in place of the last one."""
        paint(self._label, sentence, tone)
        self._label.visible = bool(sentence)
        if sentence and self._on_said is not None:
            self._on_said(sentence)

    def clear(self) -> None:
        """Say nothing."""
        self.say("")

    def complain(self, error: Exception) -> None:
        """Show an error as a sentence; the place of an unexpected one goes to Slicer's log."""
        told = in_a_sentence(error)
        if type(told) is RetRegError and told.__cause__ is not None:
            log.error("%s at %s", type(told.__cause__).__name__, _places(told.__cause__))
        self.say(str(told), "bad")

    def guarded(self, slot: Callable[..., None]) -> Callable[..., None]:
        """The same slot, whose exceptions are shown here instead of in Slicer's console."""

        def safe(*values: Any) -> None:
            try:
                slot(*values)
            except Exception as error:
                self.complain(error)

        return safe


def _places(error: BaseException) -> str:
    """Where an error came from: neither its text nor a folder, which may name a patient."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
