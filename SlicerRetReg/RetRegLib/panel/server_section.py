"""The part of the panel that finds a server, or starts one on this computer."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from slicer.i18n import tr as _

from retreg.errors import InputError
from retreg.messages import ModelInfo
from retreg.progress import Progress
from retreg.reachability import Step
from RetRegLib.jobs import Job
from RetRegLib.logic import Registration
from RetRegLib.panel.dialogs import Ask
from RetRegLib.panel.message_line import MessageLine
from RetRegLib.server.connection import Connection, test_connection

Models = tuple[ModelInfo, ...]


class ServerSection:
    """Keeps logic.connection in line with what the user entered.

    on_models(models) is called whenever the list of models changes, with () when a connection is
    given up. ask: see RetRegLib.dialogs.
    """

    def __init__(
        self,
        ui: Any,
        logic: Registration,
        line: MessageLine,
        ask: Ask,
        on_models: Callable[[Models], None],
    ) -> None:
        self._ui, self._logic, self._line = ui, logic, line
        self._ask, self._on_models = ask, on_models
        self._errand: Job[Any] | None = None
        self._runs_here = self._is_connected = False
        if logic.connection is not None:
            ui.serverAddress.text = logic.connection.url
            ui.serverToken.text = logic.connection.token
            ui.serverAuthority.text = logic.connection.ca_file
        for field in (ui.serverAddress, ui.serverToken, ui.serverAuthority):
            field.connect("textEdited(QString)", line.guarded(self._edited))
        ui.testConnectionButton.connect("clicked()", line.guarded(self.test))
        ui.startServerButton.connect("clicked()", line.guarded(self._start_or_stop))
        self._draw()

    @property
    def busy(self) -> bool:
        """Whether a connection is being tried or a server is being started."""
        return self._errand is not None and not self._errand.ended

    def connect_quietly(self) -> None:
        """Try the remembered server if it is on this computer: nothing else is sent unasked."""
        known = self._logic.connection
        if known is not None and known.is_local and not self.busy and not self._is_connected:
            self.test()

    def test(self) -> None:
        """Go to the server that was entered, step by step, and fetch its models."""
        address = str(self._ui.serverAddress.text).strip()
        if not address:
            raise InputError(
                _("No address is given; enter that of a server, or press Start local server.")
            )
        self._forget()
        fields = (self._ui.serverToken, self._ui.serverAuthority)
        self._logic.connect(address, *(str(field.text).strip() for field in fields))
        connection = self._logic.connection
        assert connection is not None
        steps: list[Step] = []

        def work(tell: Progress) -> Models:
            def hear(step: Step) -> None:
                steps.append(step)
                tell(step.name, 0.0)

            tell("address", 0.0)
            if not all(step.ok for step in test_connection(connection, hear)):
                return ()
            with connection.client() as client:
                return client.models()

        def arrived(models: Models) -> None:
            self._show_steps(steps)
            self._connected(connection, models) if models else self._draw()

        self._run(Job(work, lambda *_: self._show_steps(steps), arrived, self._failed, self._draw))

    def look_after(self) -> None:
        """See whether the local server still lives, after something has failed."""
        if self._runs_here and not self._logic.local_server.is_running:
            self._logic.connection = None
            self._forget()
            self._ui.serverStatus.text = _("The local server has ended; start it again.")
            self._ui.serverButton.collapsed = False

    def cancel(self) -> None:
        """Give up what is under way."""
        if self._errand is not None:
            self._errand.cancel()

    def _start_or_stop(self) -> None:
        if self.busy:
            self.cancel()
            self._ui.serverStatus.text = _("Stopped.")
        elif self._runs_here:
            self._logic.local_server.stop()
            self._logic.connection = None
            self._forget()
            self._ui.serverStatus.text = _("The local server was stopped.")
        else:
            self._start()

    def _start(self) -> None:
        """First see whether it is installed, which takes a moment too."""
        self._forget()
        probe = Job(
            lambda _tell: self._logic.local_server.is_installed(),
            None,
            self._line.guarded(self._install_or_start),
            self._failed,
            self._draw,
        )
        self._ui.serverStatus.text = _("Looking for the server on this computer …")
        self._run(probe)

    def _install_or_start(self, is_installed: bool) -> None:
        server = self._logic.local_server
        if not is_installed and not self._ask(
            _("Install the registration server?"), server.plan().text, _("Install")
        ):
            self._ui.serverStatus.text = _("Nothing was installed.")
            self._draw()
            return

        def work(tell: Progress) -> tuple[Connection, Models]:
            if not is_installed:
                server.install(tell)
            connection = server.start(tell)
            with connection.client() as client:
                return connection, client.models()

        def started(found: tuple[Connection, Models]) -> None:
            self._runs_here = True
            self._logic.connection = found[0]
            self._ui.serverStatus.text = _("The local server runs until Slicer is closed.")
            self._connected(*found)
            self._ui.serverButton.collapsed = True

        self._run(Job(work, self._show_stage, started, self._failed, self._draw))

    def _run(self, errand: Job[Any]) -> None:
        self._errand = errand
        self._line.clear()
        self._draw()
        self._logic.run(errand)

    def _connected(self, connection: Connection, models: Models) -> None:
        self._is_connected = True
        self._on_models(models)
        place = _("this computer") if connection.is_local else connection.host
        self._draw()
        self._ui.serverButton.text = _("Server: {place}").format(place=place)

    def _failed(self, error: Exception) -> None:
        self._ui.serverStatus.text = ""
        self._draw()
        self._line.complain(error)

    def _edited(self, _text: str) -> None:
        self._logic.connection = None
        self._forget()
        self._ui.serverStatus.text = _("Not connected: press Test connection.")

    def _forget(self) -> None:
        """The old connection no longer counts."""
        self._runs_here = self._is_connected = False
        self._on_models(())
        self._draw()

    def _draw(self) -> None:
        ui = self._ui
        ui.serverButton.text = _("Server")
        ui.testConnectionButton.enabled = not self.busy
        ui.startServerButton.text = (
            _("Cancel")
            if self.busy
            else _("Stop local server")
            if self._runs_here
            else _("Start local server")
        )

    def _show_stage(self, stage: str, _fraction: float) -> None:
        self._ui.serverStatus.text = escape(stage[:1].upper() + stage[1:]) + " …"

    def _show_steps(self, steps: list[Step]) -> None:
        marks = {True: "✓", False: "<b>✗</b>"}  # in the colour of the theme, light or dark
        lines = [
            f"{marks[step.ok]} {escape(step.name)}: {escape(step.sentence)}" for step in list(steps)
        ]
        self._ui.serverStatus.text = "<br>".join(lines)
