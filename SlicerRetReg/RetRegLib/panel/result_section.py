"""The part of the panel that says how good a result is, and shows it in the slice views."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import slicer
from slicer.i18n import tr as _

from retreg.quality import Quality, Verdict
from RetRegLib.panel import dialogs
from RetRegLib.panel.message_line import MessageLine, Tone, paint
from RetRegLib.panel.registration_section import family_title
from RetRegLib.scene.checkerboard import show_checkerboard
from RetRegLib.scene.dicom_saving import save_objects
from RetRegLib.scene.outcome import Outcome, remove_outcome, warp_again
from RetRegLib.scene.slice_views import (
    Deformation,
    show_deformation,
    show_overlay,
    show_side_by_side,
)

TONES: dict[Verdict, Tone] = {"accept": "good", "check": "doubtful", "fail": "bad"}


class ResultSection:
    """Shows one outcome. on_undone() is called after the user had it removed."""

    def __init__(self, ui: Any, line: MessageLine, on_undone: Callable[[], None]) -> None:
        self._ui, self._line, self._on_undone = ui, line, on_undone
        self._outcome: Outcome | None = None
        self._warped_with: Any = None
        guarded = line.guarded
        ui.fadeButton.connect("clicked()", guarded(self._fade))
        ui.checkerboardButton.connect("clicked()", guarded(self._checkerboard))
        ui.sideBySideButton.connect("clicked()", guarded(self._side_by_side))
        ui.fadeSlider.connect("valueChanged(double)", guarded(self._faded))
        ui.gridCheckBox.connect("clicked()", guarded(self._grid))
        ui.glyphCheckBox.connect("clicked()", guarded(self._arrows))
        ui.keypointsCheckBox.connect("clicked()", guarded(self._keypoints))
        ui.saveDicomButton.connect("clicked()", guarded(self._save_as_dicom))
        ui.undoButton.connect("clicked()", guarded(self._undo))
        self.clear()

    def show(self, outcome: Outcome, views: bool = True) -> None:
        """Show an outcome: its verdict and, in the views, what they showed of the last one.

        views: whether slice views are changed at all.
        """
        self._outcome = outcome
        self._warped_with = outcome.transform.GetTransformFromParent()
        self._ui.resultButton.enabled, self._ui.resultButton.collapsed = True, False
        self.show_quality(outcome.result.quality)
        if not views:
            return
        if self._ui.checkerboardButton.checked:
            self._checkerboard()
        elif self._ui.sideBySideButton.checked:
            self._side_by_side()
        else:
            self._fade()
        if self._ui.glyphCheckBox.checked:
            self._arrows()
        else:
            self._grid()
        self._keypoints()

    def compare_by_fading(self) -> None:
        """What is shown next lies over the fixed image."""
        self._press(self._ui.fadeButton)

    def show_quality(self, quality: Quality) -> None:
        """Show a verdict in colour and in words, and why."""
        words = {"accept": _("Accepted"), "check": _("Check"), "fail": _("Failed")}
        how = escape(_how(self._outcome)) if self._outcome else ""
        text = f"<b>{words[quality.verdict]}.</b> {escape(quality.reason)}<br><small>{how}</small>"
        notes = self._outcome.result.notes if self._outcome else ()
        text += "".join(f"<br>{_('Note:')} {escape(note)}" for note in notes)
        paint(self._ui.verdictLabel, text, TONES[quality.verdict])

    def warp_again(self) -> None:
        """Bring the warped image in line with the transform, if that was edited since."""
        if self._outcome is None:
            return
        now = self._outcome.transform.GetTransformFromParent()
        if now is not self._warped_with:
            warp_again(self._outcome)
            self._warped_with = now

    def clear(self) -> None:
        """There is no result."""
        self._outcome = self._warped_with = None
        paint(self._ui.verdictLabel, _("There is no result yet."), "plain")
        self._ui.resultButton.enabled, self._ui.resultButton.collapsed = False, True

    def _fade(self) -> None:
        self._press(self._ui.fadeButton)
        if self._outcome:
            show_overlay(self._outcome.fixed, self._outcome.moving, self._ui.fadeSlider.value)

    def _faded(self, _fraction: float) -> None:
        self._fade()

    def _checkerboard(self) -> None:
        self._press(self._ui.checkerboardButton)
        if self._outcome:
            self.warp_again()
            show_checkerboard(self._outcome)

    def _side_by_side(self) -> None:
        self._press(self._ui.sideBySideButton)
        if self._outcome:
            show_side_by_side(self._outcome.fixed, self._outcome.moving)

    def _press(self, pressed: Any) -> None:
        ui = self._ui
        for button in (ui.fadeButton, ui.checkerboardButton, ui.sideBySideButton):
            button.checked = button is pressed
        ui.fadeSlider.enabled = pressed is ui.fadeButton

    def _grid(self) -> None:
        self._ui.glyphCheckBox.checked = False
        self._show_deformation("grid" if self._ui.gridCheckBox.checked else None)

    def _arrows(self) -> None:
        self._ui.gridCheckBox.checked = False
        self._show_deformation("glyph" if self._ui.glyphCheckBox.checked else None)

    def _show_deformation(self, how: Deformation | None) -> None:
        if self._outcome:
            show_deformation(self._outcome.transform, self._outcome.fixed, how)

    def _keypoints(self) -> None:
        if self._outcome:
            shown = bool(self._ui.keypointsCheckBox.checked)
            outcome = self._outcome
            for node in (outcome.fixed_keypoints, outcome.moving_keypoints, outcome.lines):
                node.SetDisplayVisibility(shown)

    def _save_as_dicom(self) -> None:
        if self._outcome is None:
            return
        folder = dialogs.choose_folder(_("Folder for the DICOM objects"))
        if folder is not None:
            count = save_objects(self._outcome, folder, slicer.dicomDatabase)
            self._line.say(_("{count} DICOM objects were saved.").format(count=count), "good")

    def _undo(self) -> None:
        outcome = self._outcome
        if outcome is None:
            return
        remove_outcome(outcome)
        if outcome.fixed.GetScene() is not None and outcome.moving.GetScene() is not None:
            show_overlay(outcome.fixed, outcome.moving, self._ui.fadeSlider.value)
        self._on_undone()


def _how(outcome: Outcome) -> str:
    """Which model made it, with which transform, in how many seconds."""
    made = outcome.result.provenance
    seconds = made.get("seconds", {})
    total = sum(seconds.values()) if isinstance(seconds, dict) else 0.0
    family = family_title(str(made.get("options", {}).get("transform", "")))
    parts = (str(made.get("model", "")), family, f"{total:.1f} s" if total else "")
    return " · ".join(part for part in parts if part)
