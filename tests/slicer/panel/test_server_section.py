"""Finding a server, and starting one on this computer."""

from __future__ import annotations

import socket
import threading

import pytest

from retreg.errors import ServerError


@pytest.fixture
def real_steps(window, monkeypatch):
    """The panel with the true test of a connection."""
    from RetRegLib import logic
    from RetRegLib.panel import server_section
    from RetRegLib.server import connection

    monkeypatch.setattr(server_section, "test_connection", connection.test_connection)
    monkeypatch.setattr(logic, "Connection", connection.Connection)
    return window


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_without_an_address_a_sentence_says_what_to_do(window):
    window.press("testConnectionButton")
    assert "press Start local server" in window.message


def test_the_failing_step_is_named_where_nothing_answers(real_steps):
    real_steps.connect(f"http://127.0.0.1:{free_port()}")
    status = real_steps.ui.serverStatus.text
    assert "✓ address" in status
    assert "<b>✗</b> connect: " in status
    assert "health" not in status
    assert not real_steps.ui.registerButton.enabled


def test_an_unusable_address_is_refused_in_a_sentence(real_steps):
    real_steps.connect("ftp://server")
    assert "is not usable; write it like" in real_steps.message


def test_a_connection_brings_models_and_says_where_it_leads(window):
    window.connect("http://127.0.0.1:1")
    assert window.ui.modelSelector.count == 3
    assert window.ui.serverButton.text == "Server: this computer"
    assert window.ui.serverStatus.text.count("✓") == 2


def test_another_address_ends_the_connection(window):
    window.connect()
    window.ui.serverAddress.textEdited.emit("http://other")
    assert window.ui.modelSelector.count == 0
    assert window.widget.logic.connection is None
    assert "press Test connection" in window.ui.serverStatus.text


def test_address_token_and_authority_are_remembered_and_the_token_is_masked(window, make_window):
    import qt

    window.ui.serverToken.text = "secret"
    window.ui.serverAuthority.text = "/etc/hospital.pem"
    window.connect("http://127.0.0.1:1")
    again = make_window()
    assert again.ui.serverAddress.text == "http://127.0.0.1:1"
    assert again.ui.serverToken.text == "secret"
    assert again.ui.serverAuthority.text == "/etc/hospital.pem"
    assert again.ui.serverToken.echoMode == qt.QLineEdit.Password
    assert "secret" not in again.ui.serverToken.displayText


def test_a_remembered_server_on_this_computer_is_tried_on_entering(window, make_window):
    window.connect("http://127.0.0.1:1")
    again = make_window()
    again.widget.enter()
    again.until(lambda: again.ui.modelSelector.count == 3)


def test_entering_again_keeps_the_connection(window):
    window.connect("http://127.0.0.1:1")
    window.ui.modelSelector.setCurrentIndex(1)
    window.widget.exit()
    window.widget.enter()
    assert not window.panel.server.busy
    assert window.ui.modelSelector.currentText == "Other heads"


def test_a_remembered_server_elsewhere_is_left_alone_on_entering(window, make_window):
    window.connect("https://far.example")
    again = make_window()
    again.widget.enter()
    assert not again.panel.server.busy
    assert again.ui.modelSelector.count == 0


class FakeLocalServer:
    """A local server whose installation and start only say that they were asked for."""

    def __init__(self, window, installed):
        self.window, self.installed = window, installed
        self.calls, self.gate, self.error = [], threading.Event(), None
        self.is_running = False
        self.gate.set()

    def is_installed(self):
        return self.installed

    def plan(self):
        from RetRegLib.server.local_server import LocalServer

        return LocalServer().plan()

    def install(self, tell):
        self.calls.append("install")
        while not self.gate.wait(0.01):
            tell("collecting packages", 0.0)

    def start(self, tell):
        self.calls.append("start")
        tell("starting", 0.0)
        if self.error:
            raise self.error
        self.is_running = True
        return self.window.server.connection("http://127.0.0.1:1", "token")

    def stop(self):
        self.calls.append("stop")

    def check(self, _connection):
        return


@pytest.fixture
def local(window):
    window.widget.logic.local_server = FakeLocalServer(window, installed=False)
    return window, window.widget.logic.local_server


def start(window):
    window.press("startServerButton")
    window.until(lambda: not window.panel.server.busy)


def test_nothing_is_installed_without_agreement_and_the_question_says_what_goes_where(local):
    window, server = local
    window.answer = False
    start(window)
    title, text, agree = window.asked[0]
    assert "Install" in title
    assert agree == "Install"
    assert str(server.plan().folder) in text
    assert "pip" in text
    assert server.plan().size in text
    assert server.calls == []
    assert window.ui.serverStatus.text == "Nothing was installed."


def test_after_agreement_it_is_installed_started_and_used(local):
    window, server = local
    start(window)
    assert server.calls == ["install", "start"]
    assert window.ui.modelSelector.count == 3
    assert window.widget.logic.connection.token == "token"
    assert window.ui.serverButton.collapsed
    assert window.ui.startServerButton.text == "Stop local server"


def test_an_installed_server_starts_with_one_press_and_no_question(local):
    window, server = local
    server.installed = True
    start(window)
    assert server.calls == ["start"]
    assert window.asked == []


def test_a_server_that_does_not_start_leaves_a_sentence(local):
    window, server = local
    server.installed, server.error = True, ServerError("The server did not start; see its log.")
    start(window)
    assert window.message == "The server did not start; see its log."
    assert window.ui.startServerButton.text == "Start local server"


def test_an_installation_can_be_cancelled(local):
    window, server = local
    server.gate.clear()
    window.press("startServerButton")
    window.until(lambda: "Collecting packages" in window.ui.serverStatus.text)
    assert window.ui.startServerButton.text == "Cancel"
    assert not window.ui.testConnectionButton.enabled
    window.press("startServerButton")
    assert not window.panel.server.busy
    assert window.ui.startServerButton.text == "Start local server"
    assert "start" not in server.calls


def test_the_local_server_can_be_stopped_and_is_when_the_module_closes(local):
    window, server = local
    server.installed = True
    start(window)
    window.press("startServerButton")
    assert server.calls == ["start", "stop"]
    assert window.ui.modelSelector.count == 0
    assert window.widget.logic.connection is None
    window.panel.close()
    assert server.calls[-1] == "stop"


def test_quitting_slicer_stops_the_local_server(window):
    slots = window.app.slots["aboutToQuit()"]
    assert window.widget.logic.local_server.stop in slots
