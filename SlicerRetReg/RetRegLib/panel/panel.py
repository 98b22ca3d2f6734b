"""The panel of the module: joins its sections, and runs one registration at a time."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from retreg.client import UPLOADING
from retreg.errors import RetRegError
from retreg.messages import ModelInfo, RegistrationResult
from RetRegLib.jobs import Job
from RetRegLib.logic import Registration
from RetRegLib.panel.dialogs import Ask
from RetRegLib.panel.message_line import MessageLine
from RetRegLib.panel.refit_section import RefitSection
from RetRegLib.panel.registration_section import RegistrationSection
from RetRegLib.panel.result_section import ResultSection
from RetRegLib.panel.server_section import ServerSection
from RetRegLib.scene.outcome import Outcome
from RetRegLib.scene.parameters import parameter_node, read_parameters, write_parameters
from RetRegLib.scene.replacing import clear_away, same_pair, wanted_again

PROGRESS_STEPS = 1000
SENDING = 0.1  # of the progress bar
UNSENT = 1.0 - SENDING


class Panel:
    """Everything below the module's top widget.

    ui: the named widgets of RetReg.ui. logic: does the work. scene: the MRML scene, in which the
    panel keeps its parameters. ask: see RetRegLib.dialogs.
    """

    def __init__(self, ui: Any, logic: Registration, scene: Any, ask: Ask) -> None:
        self._ui, self._logic, self._scene = ui, logic, scene
        self._job: Job[RegistrationResult] | None = None
        self._progress = 0.0
        self.outcome: Outcome | None = None
        self.line = MessageLine(ui.messageLabel)
        logic.ask = lambda question: ask(_("Send images to another computer?"), question, _("Send"))
        self.result = ResultSection(ui, self.line, self._undone)
        self.refit = RefitSection(
            ui, self.line, self.result.show_quality, self.result.warp_again
        )
        self.order = RegistrationSection(ui, self.line, self._order_changed)
        self.server = ServerSection(ui, logic, self.line, ask, self._models_changed)
        ui.registerButton.connect("clicked()", self.line.guarded(self._register_or_cancel))
        self.scene_opened()

    @property
    def busy(self) -> bool:
        """Whether a registration runs."""
        return self._job is not None and not self._job.ended

    def enter(self) -> None:
        """The user opens the module."""
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
        if self._job is not None:
            self._job.cancel()
        self._forget_outcome()

    def scene_opened(self) -> None:
        """Show what a new, imported or emptied scene asks for."""
        self.order.show(read_parameters(parameter_node(self._scene)))
        self._draw()

    def node_removed(self) -> None:
        """A node has left the scene; perhaps the user deleted a result."""
        if self.outcome is not None and self.outcome.transform.GetScene() is None:
            self._forget_outcome()

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
            self._job.cancel()
            return
        order, model, wanted = self.order.parameters, self.order.model, self.order.wanted()
        self._keep_parameters()
        if self.outcome is not None and same_pair(self.outcome, order):
            wanted = wanted_again(wanted, self.outcome)
            self.refit.pause()  # else it would follow the keypoints that are put into its lists
        self._progress = 0.0
        self._job = self._logic.register_async(
            order.fixed,
            order.moving,
            model.name if model else None,
            wanted=wanted,
            on_done=self.line.guarded(self._done),
            on_error=self._failed,
            on_progress=self._progressed,
            on_cancelled=self._cancelled,
            **self.order.options(),
        )
        if self.busy:
            self._progressed(_("starting"), 0.0)
        self._draw()

    def _progressed(self, stage: str, fraction: float) -> None:
        bar = self._ui.progressBar
        # A bar without an end says that nobody knows how long it takes, as in a queue.
        bar.maximum = PROGRESS_STEPS if fraction > 0 else 0
        share = SENDING * fraction if stage in UPLOADING.values() else SENDING + UNSENT * fraction
        self._progress = max(self._progress, share)  # each image is sent from 0 to 1
        bar.value = round(self._progress * PROGRESS_STEPS)
        self.line.say(f"{stage[:1].upper()}{stage[1:]} …")

    def _done(self, outcome: Outcome) -> None:
        self.line.clear()
        if self.outcome is not None and same_pair(self.outcome, outcome):
            clear_away(self.outcome, outcome)
        self.outcome = outcome
        self._draw()
        self.refit.show(outcome, self.order.parameters.smoothing)
        self.result.show(outcome)

    def _failed(self, error: RetRegError) -> None:
        self._draw()
        self.refit.resume()
        self.server.look_after()
        self.line.complain(error)

    def _cancelled(self) -> None:
        self._draw()
        self.refit.resume()
        self.line.say(_("Cancelled; nothing was changed."))

    def _undone(self) -> None:
        self._forget_outcome()
        self._draw()
        self.line.say(_("The result was removed, and the moving image is back where it was."))

    def _forget_outcome(self) -> None:
        self.outcome = None
        self.refit.close()
        self.result.clear()

    def _draw(self) -> None:
        """What can be pressed now, and why not."""
        ui, missing = self._ui, self.order.missing()
        ui.registerButton.text = _("Cancel") if self.busy else _("Register")
        ui.registerButton.enabled = self.busy or not missing
        ui.registerButton.toolTip = (
            _("Stops the registration; nothing is changed.")
            if self.busy
            else missing or _("Brings the moving image onto the fixed one.")
        )
        hint = missing or self._where_it_starts()
        ui.hintLabel.text, ui.hintLabel.visible = hint, bool(hint) and not self.busy
        ui.progressBar.visible = self.busy
        for section in (ui.inputsButton, ui.serverButton, ui.registrationButton, ui.advancedButton):
            section.enabled = not self.busy
        ui.undoButton.enabled = not self.busy

    def _where_it_starts(self) -> str:
        """A sentence when the moving image is not where its file says; empty otherwise."""
        order = self.order.parameters
        parent = order.moving.GetParentTransformNode()
        if parent is None or same_pair(self.outcome, order):
            return ""
        text = _("The moving image lies under {name}; it is registered from where it is shown.")
        return str(text.format(name=parent.GetName()))
