"""The panel of the module: joins its sections, and runs one registration at a time."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import qt
from slicer.i18n import tr as _

from retreg.client import UPLOADING
from retreg.errors import RetRegError
from retreg.messages import ModelInfo, RegistrationResult
from RetRegLib.jobs import Job
from RetRegLib.logic import Registration
from RetRegLib.panel.dialogs import Ask
from RetRegLib.panel.message_line import MessageLine
from RetRegLib.panel.presets import Presets
from RetRegLib.panel.refit_section import RefitSection
from RetRegLib.panel.registration_section import RegistrationSection
from RetRegLib.panel.result_section import ResultSection
from RetRegLib.panel.results_list import ResultsList
from RetRegLib.panel.server_section import ServerSection
from RetRegLib.refit.landmarks import LANDMARKS, landmark_result
from RetRegLib.scene.guides import Guides
from RetRegLib.scene.outcome import Outcome, show_outcome
from RetRegLib.scene.output_nodes import OutputNodes
from RetRegLib.scene.parameters import (
    Parameters,
    parameter_node,
    read_parameters,
    write_parameters,
)
from RetRegLib.scene.placement import disregarded
from RetRegLib.scene.replacing import clear_away, same_pair, wanted_again
from RetRegLib.scene.volumes import grid_of_volume

PROGRESS_STEPS = 1000
SENDING = 0.1  # of the progress bar
UNSENT = 1.0 - SENDING
CLOCK_MS = 500
RUN_KEYS = "Ctrl+Shift+R"


class Panel:
    """Everything below the module's top widget.

    ui: the named widgets of RetReg.ui. logic: does the work. scene: the MRML scene, in which the
    panel keeps its parameters. ask: see RetRegLib.dialogs.
    """

    def __init__(self, ui: Any, logic: Registration, scene: Any, ask: Ask) -> None:
        self._ui, self._logic, self._scene = ui, logic, scene
        self._job: Job[RegistrationResult] | None = None
        self._progress, self._began = 0.0, 0.0
        self._replacing: Outcome | None = None
        self._waiting: list[Any] = []  # further moving images, and what became of those before
        self._turns, self._failures = 1, list[str]()
        self._clock = qt.QTimer()
        self._clock.setInterval(CLOCK_MS)
        self._clock.connect("timeout()", self._tick)
        self.line = MessageLine(ui.messageLabel, self._log)
        logic.ask = lambda question: ask(_("Send images to another computer?"), question, _("Send"))
        self.result = ResultSection(ui, self.line, self._undone)
        self.refit = RefitSection(
            ui, self.line, self.result.show_quality, self.result.warp_again
        )
        self.results = ResultsList(ui, self.line, self._chosen)
        self.order = RegistrationSection(ui, self.line, self._order_changed)
        self.presets = Presets(ui, self.line, logic.settings, self.order, self._order_changed)
        self.server = ServerSection(ui, logic, self.line, ask, self._models_changed)
        ui.registerButton.connect("clicked()", self.line.guarded(self._register_or_cancel))
        ui.landmarksButton.connect("clicked()", self.line.guarded(self._set_points))
        ui.logCheckBox.connect("clicked()", self._show_log)
        self.scene_opened()

    @property
    def outcome(self) -> Outcome | None:
        """The result that is shown."""
        return self.results.active

    @property
    def busy(self) -> bool:
        """Whether a registration runs."""
        return self._job is not None and not self._job.ended

    def enter(self) -> None:
        """The user opens the module."""
        self.line.guarded(self._find_results)()
        self.line.guarded(self.server.connect_quietly)()

    def exit(self) -> None:
        """The user opens another module; a registration that runs goes on."""
        self._keep_parameters()

    def close(self) -> None:
        """The module is unloaded or Slicer ends."""
        self.scene_closes()
        self.server.cancel()
        self._logic.local_server.stop()

    def scene_closes(self) -> None:
        """Every node goes away."""
        self._waiting = []
        if self._job is not None:
            self._job.cancel()
        self.results.drop(*self.results.outcomes)
        self._show_active(views=False)

    def scene_opened(self) -> None:
        """Show what a new, imported or emptied scene asks for."""
        self.order.show(read_parameters(parameter_node(self._scene)))
        self.line.guarded(self._find_results)()
        self._draw()

    def node_removed(self) -> None:
        """A node has left the scene; perhaps the user deleted a result."""
        gone = [each for each in self.results.outcomes if each.transform.GetScene() is None]
        shown = self.outcome
        self.results.drop(*gone)
        if shown is not self.outcome:
            self._show_active(views=self.outcome is not None)

    def _order_changed(self) -> None:
        self._keep_parameters()
        self._draw()

    def _models_changed(self, models: tuple[ModelInfo, ...]) -> None:
        self.order.show_models(models)
        self._draw()

    def _keep_parameters(self) -> None:
        if not (self._scene.IsClosing() or self._scene.IsImporting()):  # else read at the end
            write_parameters(parameter_node(self._scene), self.order.parameters)

    def _register_or_cancel(self) -> None:
        if self._job is not None and not self._job.ended:
            self._waiting = []
            self._job.cancel()
            return
        self._keep_parameters()
        order = self.order.parameters
        self._waiting = [each for each in order.more if each not in (order.fixed, order.moving)]
        self._turns, self._failures = 1 + len(self._waiting), []
        self._began = time.monotonic()
        self._start(order, self.order.wanted())

    def _start(self, order: Parameters, wanted: OutputNodes) -> None:
        model, self._progress = self.order.model, 0.0
        self._replacing = None if order.keep or order.on_top else self._same(order)
        if self._replacing is not None:
            wanted = wanted_again(wanted, self._replacing)
            self.refit.pause()  # else it would follow the keypoints that are put into its lists
        self._clock.start()
        self._job = self._logic.register_async(
            order.fixed,
            order.moving,
            model.name if model else None,
            wanted=wanted,
            also=[node for node in order.also if node.GetScene() is not None],
            on_top=order.on_top,
            guides=Guides(order.fixed_mask, order.moving_mask, order.initial),
            on_done=self.line.guarded(self._done),
            on_error=self._failed,
            on_progress=self._progressed,
            on_cancelled=self._cancelled,
            **self.order.options(),
        )
        if self.busy:
            self._progressed(_("starting"), 0.0)
        self._draw()

    def _go_on(self) -> None:
        """Register the next one of several moving images; after the last one, sum up."""
        if self._waiting:
            moving = self._waiting.pop(0)
            order = replace(self.order.parameters, moving=moving)
            self._start(replace(order, also=(), moving_mask=None, initial=None), OutputNodes())
        elif self._turns > 1:
            done = self._turns - len(self._failures)
            text = _("{done} of {turns} images are registered; choose them in Results.")
            text = text.format(done=done, turns=self._turns)
            self.line.say(" ".join([text, *self._failures]), "bad" if self._failures else "plain")

    def _progressed(self, stage: str, fraction: float) -> None:
        bar = self._ui.progressBar
        # A bar without an end says that nobody knows how long it takes, as in a queue.
        bar.maximum = PROGRESS_STEPS if fraction > 0 else 0
        share = SENDING * fraction if stage in UPLOADING.values() else SENDING + UNSENT * fraction
        self._progress = max(self._progress, share)  # each image is sent from 0 to 1
        bar.value = round(self._progress * PROGRESS_STEPS)
        turn = self._turns - len(self._waiting)
        which = f"{turn}/{self._turns}: " if self._turns > 1 else ""
        self.line.say(f"{which}{stage[:1].upper()}{stage[1:]} …")

    def _same(self, order: Parameters) -> Outcome | None:
        """The result of the same images that a new one replaces: the shown one, or the latest.

        What people made by hand is never replaced.
        """
        found = [
            each for each in self.results.outcomes
            if same_pair(each, order) and each.result.provenance.get("model") != LANDMARKS
        ]
        return self.outcome if self.outcome in found else found[-1] if found else None

    def _done(self, outcome: Outcome) -> None:
        self.line.clear()
        for old in list(self.results.outcomes):
            if old is self._replacing or old.transform is outcome.transform:
                self.results.drop(old)
                clear_away(old, outcome)
        self._replacing = None
        self.result.compare_by_fading()
        self.results.add(outcome)
        self._show_active()
        self._draw()
        seconds = time.monotonic() - self._began
        self._log(f"{_('Done')} ({seconds:.1f} s): {outcome.result.quality.reason}")
        self._go_on()

    def _set_points(self) -> None:
        """A result without keypoints, to which points are added by hand."""
        order = self.order.parameters
        below = disregarded(order.moving, None, order.on_top)
        grids = grid_of_volume(order.fixed), grid_of_volume(order.moving, below)
        self._began, self._turns, self._replacing = time.monotonic(), 1, None
        nodes = order.fixed, order.moving
        made = landmark_result(*grids)
        self._done(show_outcome(made, *nodes, OutputNodes(), order.also, order.on_top))
        self.refit.add_points()

    def _chosen(self, _outcome: Outcome) -> None:
        self._show_active()
        self._draw()

    def _find_results(self) -> None:
        if self.results.find(self._scene):
            self._show_active(views=False)

    def _show_active(self, views: bool = True) -> None:
        if self.outcome is None:
            self.refit.close()
            self.result.clear()
            return
        self.result.show(self.outcome, views)
        self.refit.show(self.outcome, self.order.parameters.smoothing)

    def _failed(self, error: RetRegError) -> None:
        self._draw()
        self.refit.resume()
        self.server.look_after()
        self.line.complain(error)
        self._failures.append(str(error))
        self.line.guarded(self._go_on)()

    def _cancelled(self) -> None:
        self._draw()
        self.refit.resume()
        self.line.say(
            _("Cancelled; nothing was changed.") if self._turns == 1
            else _("Cancelled; what was registered before is in Results.")
        )

    def _undone(self) -> None:
        self._draw()
        self.line.say(_("The result was removed, and the moving image is back where it was."))

    def _tick(self) -> None:
        seconds = int(time.monotonic() - self._began)
        self._ui.elapsedLabel.text = _("{minutes}:{seconds:02d} min").format(
            minutes=seconds // 60, seconds=seconds % 60
        )

    def _log(self, sentence: str) -> None:
        self._ui.logText.appendPlainText(f"{time.strftime('%H:%M:%S')}  {sentence}")

    def _show_log(self) -> None:
        self._ui.logText.visible = self._ui.logCheckBox.checked

    def _draw(self) -> None:
        """What can be pressed now, and why not."""
        ui, missing = self._ui, self.order.missing()
        ui.registerButton.text = _("Cancel") if self.busy else _("Register")
        ui.registerButton.shortcut = qt.QKeySequence(RUN_KEYS)  # a new text takes it away
        ui.registerButton.enabled = self.busy or not missing
        both = self.order.parameters.fixed, self.order.parameters.moving
        ui.landmarksButton.enabled = None not in both and both[0] is not both[1] and not self.busy
        if not self.busy:
            self._clock.stop()
        ui.elapsedLabel.visible = self.busy
        ui.registerButton.toolTip = (
            _("Stops the registration; nothing is changed.")
            if self.busy
            else missing or _("Brings the moving image onto the fixed one.")
        )
        hint = missing or self._where_it_starts()
        ui.hintLabel.text, ui.hintLabel.visible = hint, bool(hint) and not self.busy
        ui.progressBar.visible = self.busy
        for section in (
            ui.inputsButton, ui.outputsButton, ui.serverButton, ui.registrationButton,
            ui.advancedButton, ui.resultSelector, ui.flipButton,
        ):
            section.enabled = not self.busy
        ui.flipButton.enabled = not self.busy and len(self.results.outcomes) > 1
        ui.undoButton.enabled = not self.busy

    def _where_it_starts(self) -> str:
        """A sentence when the moving image is not where its file says; empty otherwise."""
        order = self.order.parameters
        parent = order.moving.GetParentTransformNode()
        below = disregarded(order.moving, None, order.on_top)
        told = below is not None and same_pair(self.outcome, order)
        if parent is None or parent is below or told:
            return ""
        text = _("The moving image lies under {name}; it is registered from where it is shown.")
        return str(text.format(name=parent.GetName()))
