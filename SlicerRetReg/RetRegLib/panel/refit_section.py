"""The part of the panel that shows how the keypoints fit, and fits the transform to them anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import qt
from slicer.i18n import tr as _

from retreg.hand_edit import usual_reach_mm
from retreg.quality import Quality
from RetRegLib.panel.message_line import MessageLine
from RetRegLib.panel.registration_section import family_title, quietly, refill
from RetRegLib.panel.smoothing_scale import position_of, smoothing_at, smoothing_text
from RetRegLib.refit.landmarks import LANDMARKS
from RetRegLib.refit.live_refit import WAYS, LiveRefit, Refit, Way
from RetRegLib.scene.markups import keypoints_by_label
from RetRegLib.scene.outcome import Outcome
from RetRegLib.scene.placing import interaction_node, is_placing, start_placing, stop_placing
from RetRegLib.scene.reports import edit_of

WORST = 12  # rows of the table; a person looks at no more
PAUSE_MS = 300
ROW_PX = 22


class RefitSection:
    """Fits the transform of an outcome to its keypoints whenever these change.

    on_quality(quality) is called after each fit with the verdict on what can be judged here,
    on_warp() when the user wants the warped image to follow.
    """

    def __init__(
        self,
        ui: Any,
        line: MessageLine,
        on_quality: Callable[[Quality], None],
        on_warp: Callable[[], None],
    ) -> None:
        self._ui, self._line, self._on_quality = ui, line, on_quality
        self._outcome: Outcome | None = None
        self._live: LiveRefit | None = None
        self._ordered_smoothing = 0.0
        self._labels: list[str] = []
        self._mode: tuple[Any, int] | None = None  # the node of the mouse mode, and our observer
        self._pause = qt.QTimer()  # after which the slider counts as let go
        self._pause.setSingleShot(True)
        self._pause.setInterval(PAUSE_MS)
        guarded = line.guarded
        self._pause.connect("timeout()", guarded(self._settle))
        ui.followCheckBox.connect("clicked()", guarded(self._follow_or_not))
        ui.refitFamilySelector.connect("currentIndexChanged(int)", guarded(self._family_chosen))
        ui.refitSmoothingSlider.connect("valueChanged(double)", guarded(self._smoothing_moved))
        ui.reachSlider.connect("valueChanged(double)", guarded(self._reach_moved))
        ui.addPointsButton.connect("clicked()", guarded(self._add_points))
        ui.resetButton.connect("clicked()", guarded(self._reset))
        ui.warpButton.connect("clicked()", guarded(on_warp))
        ui.residualTable.connect("cellClicked(int,int)", guarded(self._go_to))
        ui.residualTable.setColumnCount(2)
        ui.residualTable.horizontalHeader().setStretchLastSection(True)
        rows = ui.residualTable.verticalHeader()
        rows.setVisible(False)
        rows.setDefaultSectionSize(ROW_PX)
        refill(ui.refitFamilySelector, [_way_title(way) for way in WAYS], -1)
        self.close()

    def show(self, outcome: Outcome, smoothing: float) -> None:
        """Take up an outcome; it is changed only when something is edited.

        smoothing: of splines, where none was chosen for this outcome before.
        """
        self.close()
        self._outcome, self._ordered_smoothing = outcome, smoothing
        made, grid = outcome.result.provenance, outcome.fixed_grid
        edit = edit_of(outcome.provenance)
        by_hand = made.get("model") == LANDMARKS
        usual = made.get("options", {}).get("transform") if by_hand else "correction"
        asked = edit.get("transform", usual)
        slider = self._ui.reachSlider
        blocked = slider.blockSignals(True)
        slider.minimum = float(grid.spacing.min())
        slider.maximum = float((grid.spacing * grid.size).max())
        slider.blockSignals(blocked)
        unit = _unit(outcome)
        self._ui.refitReachTitle.text = _("Reach ({unit}):").format(unit=unit)
        way: Way = asked if asked in WAYS else "correction"
        reach_mm = edit.get("reach_mm") or usual_reach_mm(grid)
        self._show_fit(way, edit.get("smoothing", smoothing), reach_mm)
        self.resume()
        if self._live is not None and outcome.is_edited:
            self._on_quality(self._live.refit.verdict)

    def pause(self) -> None:
        """Follow no keypoints until resume."""
        self._end()
        self._ui.refitButton.enabled = False

    def resume(self) -> None:
        """Follow the keypoints again, if there are any and the user wants it."""
        self._ui.refitButton.enabled = self._outcome is not None
        if self._outcome is not None and self._ui.followCheckBox.checked:
            self._begin()

    def close(self) -> None:
        """Let go of the outcome."""
        self._end()
        self._outcome = None
        self._ui.refitButton.enabled = False
        self._ui.refitSummary.text = ""
        self._ui.residualTable.setRowCount(0)
        self._show_smoothing()

    def add_points(self) -> None:
        """Let clicks place points, as if the button had been pressed."""
        self._ui.refitButton.collapsed = False
        self._ui.addPointsButton.checked = True
        self._add_points()

    @property
    def _family(self) -> Way:
        return WAYS[max(self._ui.refitFamilySelector.currentIndex, 0)]

    @property
    def _smoothing(self) -> float:
        return smoothing_at(self._ui.refitSmoothingSlider.value)

    def _begin(self) -> LiveRefit:
        assert self._outcome is not None
        if self._live is None:
            hear = self._line.guarded(self._refitted)
            reach = float(self._ui.reachSlider.value)
            self._live = LiveRefit(self._outcome, self._family, self._smoothing, hear, reach)
            self._show_refit(self._live.refit)
        return self._live

    def _end(self) -> None:
        self._pause.stop()
        self._end_placing()
        if self._live is not None:
            self._live.close()
            self._live = None

    def _follow_or_not(self) -> None:
        if self._outcome is None:
            return
        if self._ui.followCheckBox.checked:
            self._begin()
        else:
            self._end()

    def _family_chosen(self, _index: int) -> None:
        self._show_smoothing()
        if self._outcome is not None:
            self._begin().set_family(self._family)

    def _smoothing_moved(self, _position: float) -> None:
        self._show_smoothing()
        if self._outcome is not None:
            self._begin().set_smoothing(self._smoothing)
            self._pause.start()

    def _reach_moved(self, reach_mm: float) -> None:
        if self._outcome is not None:
            self._begin().set_reach(reach_mm)

    def _add_points(self) -> None:
        if not self._ui.addPointsButton.checked or self._outcome is None:
            self._end_placing()
            return
        self._begin().expect_points(True)
        points = self._outcome.fixed_keypoints
        mode = interaction_node(points.GetScene())
        start_placing(points)
        if mode is not None:
            event = mode.InteractionModeChangedEvent
            self._mode = (mode, mode.AddObserver(event, lambda *_: self._mode_changed()))
        self._line.say(
            _("Click on a place of the fixed image, then drag its cross to that of the moving one.")
        )

    def _mode_changed(self) -> None:
        """A right click, or another tool, ends the placing of points."""
        if self._mode is not None and not is_placing(self._mode[0].GetScene()):
            self._end_placing()

    def _end_placing(self) -> None:
        self._ui.addPointsButton.checked = False
        if self._live is not None:
            self._live.expect_points(False)
        if self._mode is not None:
            (mode, tag), self._mode = self._mode, None
            mode.RemoveObserver(tag)
            if mode.GetScene() is not None:
                stop_placing(mode.GetScene())

    def _settle(self) -> None:
        if self._live is not None:
            self._live.settle()

    def _reset(self) -> None:
        if self._outcome is not None:
            self._begin().reset()
            self.show(self._outcome, self._ordered_smoothing)
            self._line.say(_("Keypoints and transform are those of the registration again."))

    def _show_fit(self, way: Way, smoothing: float, reach_mm: float) -> None:
        """Show which transform is fitted, without fitting it."""
        selector, slider = self._ui.refitFamilySelector, self._ui.refitSmoothingSlider
        quietly(selector, selector.setCurrentIndex, WAYS.index(way))
        quietly(slider, slider.setValue, position_of(smoothing))
        quietly(self._ui.reachSlider, self._ui.reachSlider.setValue, reach_mm)
        self._show_smoothing()

    def _show_smoothing(self) -> None:
        bends = self._family == "tps"
        self._ui.refitSmoothingLabel.text = smoothing_text(self._smoothing)
        self._ui.refitSmoothingSlider.enabled = bends
        self._ui.refitSmoothingLabel.enabled = bends
        self._ui.reachSlider.enabled = self._family == "correction"

    def _refitted(self, refit: Refit) -> None:
        self._show_refit(refit)
        self._on_quality(refit.verdict)
        wide = refit.reach_mm > self._ui.reachSlider.value * 1.001
        note = _("The correction reaches {reach:.0f} {unit}, since the image would else fold.")
        unit = _unit(self._outcome) if self._outcome is not None else ""
        note = note.format(reach=refit.reach_mm, unit=unit) if wide else ""
        self._line.say(refit.problem or note, "doubtful")

    def _show_refit(self, refit: Refit) -> None:
        assert self._outcome is not None
        unit = _unit(self._outcome)
        points = self._outcome.fixed_keypoints
        index = keypoints_by_label(points)
        selected = [points.GetNthControlPointSelected(index[label]) for label in refit.labels]
        used = np.flatnonzero(selected)
        residuals = refit.residuals_mm[used]
        unused = len(refit.labels) - len(used)
        self._ui.refitSummary.text = summary(residuals, unused, unit)
        worst = used[np.argsort(-residuals, kind="stable")[:WORST]].tolist()
        self._labels = [refit.labels[n] for n in worst]
        table = self._ui.residualTable
        table.setHorizontalHeaderLabels([_("Keypoint"), _("Off by ({unit})").format(unit=unit)])
        table.setRowCount(len(worst))
        for row, n in enumerate(worst):
            table.setItem(row, 0, qt.QTableWidgetItem(refit.labels[n]))
            table.setItem(row, 1, qt.QTableWidgetItem(f"{refit.residuals_mm[n]:.2f}"))

    def _go_to(self, row: int, _column: int) -> None:
        """Show the keypoint of a row of the table in all slice views."""
        import slicer

        if self._outcome is None or row >= len(self._labels):
            return
        points = self._outcome.fixed_keypoints
        index = keypoints_by_label(points)[self._labels[row]]
        place = [0.0, 0.0, 0.0]
        points.GetNthControlPointPositionWorld(index, place)
        views = slicer.vtkMRMLSliceNode
        views.JumpAllSlices(points.GetScene(), *place, views.CenteredJumpSlice)


def _unit(outcome: Outcome) -> str:
    return "px" if outcome.fixed_grid.is_unscaled_picture else "mm"


def _way_title(way: Way) -> str:
    if way == "correction":
        return str(_("Correct the result around the points that are moved"))
    return str(_("Fit to all keypoints: {family}").format(family=family_title(way)))


def summary(residuals: np.ndarray, unused: int, unit: str) -> str:
    """How well the keypoints that are used fit, in one line."""
    if not len(residuals):
        return str(_("No keypoints are used; press Add points to set some."))
    text = _(
        "{count} keypoints are used, {unused} are not. Half of them lie within {median:.2f} "
        "{unit}, all within {worst:.2f} {unit}."
    )
    values = {"count": len(residuals), "unused": unused, "unit": unit}
    median, worst = float(np.median(residuals)), float(residuals.max())
    return str(text.format(median=median, worst=worst, **values))
