"""The part of the panel that shows how the keypoints fit, and fits the transform to them anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import qt
from slicer.i18n import tr as _

from retreg.fitting import Family
from retreg.quality import Quality
from RetRegLib.panel.message_line import MessageLine
from RetRegLib.panel.registration_section import family_title, quietly, refill
from RetRegLib.panel.smoothing_scale import position_of, smoothing_at, smoothing_text
from RetRegLib.refit.live_refit import LiveRefit, Refit
from RetRegLib.scene.markups import keypoints_by_label
from RetRegLib.scene.outcome import Outcome

FAMILIES: tuple[Family, ...] = get_args(Family)
FEWEST_POINTS = 4
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
        self._labels: list[str] = []
        self._pause = qt.QTimer()  # after which the slider counts as let go
        self._pause.setSingleShot(True)
        self._pause.setInterval(PAUSE_MS)
        guarded = line.guarded
        self._pause.connect("timeout()", guarded(self._settle))
        ui.followCheckBox.connect("clicked()", guarded(self._follow_or_not))
        ui.refitFamilySelector.connect("currentIndexChanged(int)", guarded(self._family_chosen))
        ui.refitSmoothingSlider.connect("valueChanged(double)", guarded(self._smoothing_moved))
        ui.resetButton.connect("clicked()", guarded(self._reset))
        ui.warpButton.connect("clicked()", guarded(on_warp))
        ui.residualTable.connect("cellClicked(int,int)", guarded(self._go_to))
        ui.residualTable.setColumnCount(2)
        ui.residualTable.horizontalHeader().setStretchLastSection(True)
        rows = ui.residualTable.verticalHeader()
        rows.setVisible(False)
        rows.setDefaultSectionSize(ROW_PX)
        refill(ui.refitFamilySelector, [family_title(family) for family in FAMILIES], -1)
        self.close()

    def show(self, outcome: Outcome, smoothing: float) -> None:
        """Take up an outcome; it is fitted anew only when something is changed."""
        self.close()
        asked = str(outcome.result.provenance.get("options", {}).get("transform", ""))
        enough = len(outcome.result.fixed_keypoints) >= FEWEST_POINTS
        self._outcome = outcome if enough else None
        self._show_fit(asked if asked in FAMILIES else "affine", smoothing)
        if not enough:
            self._ui.refitSummary.text = _("The model found too few keypoints to fit to.")
        self.resume()

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

    @property
    def _family(self) -> Family:
        return FAMILIES[max(self._ui.refitFamilySelector.currentIndex, 0)]

    @property
    def _smoothing(self) -> float:
        return smoothing_at(self._ui.refitSmoothingSlider.value)

    def _begin(self) -> LiveRefit:
        assert self._outcome is not None
        if self._live is None:
            hear = self._line.guarded(self._refitted)
            self._live = LiveRefit(self._outcome, self._family, self._smoothing, hear)
            self._show_refit(self._live.refit)
        return self._live

    def _end(self) -> None:
        self._pause.stop()
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

    def _settle(self) -> None:
        if self._live is not None:
            self._live.settle()

    def _reset(self) -> None:
        if self._outcome is not None:
            live = self._begin()
            live.reset()
            self._show_fit(live.family, live.smoothing)
            self._line.say(_("Keypoints and transform are those of the registration again."))

    def _show_fit(self, family: str, smoothing: float) -> None:
        """Show which transform is fitted, without fitting it."""
        selector, slider = self._ui.refitFamilySelector, self._ui.refitSmoothingSlider
        quietly(selector, selector.setCurrentIndex, FAMILIES.index(family))
        quietly(slider, slider.setValue, position_of(smoothing))
        self._show_smoothing()

    def _show_smoothing(self) -> None:
        bends = self._family == "tps"
        self._ui.refitSmoothingLabel.text = smoothing_text(self._smoothing)
        self._ui.refitSmoothingSlider.enabled = bends
        self._ui.refitSmoothingLabel.enabled = bends

    def _refitted(self, refit: Refit) -> None:
        self._show_refit(refit)
        self._on_quality(refit.verdict)
        self._line.say(refit.problem, "doubtful")

    def _show_refit(self, refit: Refit) -> None:
        assert self._outcome is not None
        unit = "px" if self._outcome.fixed_grid.is_unscaled_picture else "mm"
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


def summary(residuals: np.ndarray, unused: int, unit: str) -> str:
    """How well the keypoints that are used fit, in one line."""
    if not len(residuals):
        return str(_("No keypoints are used."))
    text = _(
        "{count} keypoints are used, {unused} are not. Half of them lie within {median:.2f} "
        "{unit}, all within {worst:.2f} {unit}."
    )
    values = {"count": len(residuals), "unused": unused, "unit": unit}
    median, worst = float(np.median(residuals)), float(residuals.max())
    return str(text.format(median=median, worst=worst, **values))
