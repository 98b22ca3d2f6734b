"""The way to a server: what is tested, asked and remembered."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from retreg.errors import InputError, ServerError

NAMES = ["address", "resolve", "connect", "health", "token", "models"]
ANSWERS = {
    "/healthz": {"status": "ok"},
    "/v1/info": {"version": "9.9"},
    "/v1/models": {"models": []},
}


@pytest.fixture
def connection(slicer):
    assert slicer
    from RetRegLib.server import connection

    return connection


@pytest.fixture
def consent(slicer):
    assert slicer
    from RetRegLib.server.consent import Consent

    return Consent


@pytest.fixture
def serve():
    """Starts a server that answers each path with a status and a body; gives its address."""
    servers = []

    def start(answer, tls: ssl.SSLContext | None = None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answer(self.path, self.headers.get("Authorization"))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_) -> None:
                """Silent."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def good(path: str, _token: str | None) -> tuple[int, bytes]:
    return 200, json.dumps(ANSWERS[path]).encode()


def guarded(path: str, token: str | None) -> tuple[int, bytes]:
    if path != "/healthz" and token != "Bearer right":
        return 401, b'{"error": "unauthorised", "message": "The token is missing or wrong."}'
    return good(path, token)


def test_all_steps_to_a_good_server_are_told_as_they_are_taken(connection, serve):
    told = []
    steps = connection.test_connection(connection.Connection(serve(guarded), "right"), told.append)
    assert [step.name for step in steps] == NAMES
    assert all(step.ok for step in steps)
    assert told == steps
    assert "version 9.9" in steps[4].sentence


@pytest.mark.parametrize(
    ("url", "name", "words"),
    [
        ("nonsense", "address", "write it like"),
        ("http://127.0.0.1:99999", "address", "65535"),
        ("http://no-such-host.invalid", "resolve", "spelling"),
        ("http://127.0.0.1:9", "connect", "firewall"),
    ],
)
def test_the_step_that_fails_is_named_and_is_the_last(connection, url, name, words, monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    steps = connection.test_connection(connection.Connection(url))
    assert [step.ok for step in steps] == [True] * (len(steps) - 1) + [False]
    assert steps[-1].name == name
    assert words in steps[-1].sentence


@pytest.mark.parametrize(
    ("answer", "token", "name", "words"),
    [
        (lambda *_: (200, b"<html>hello"), "", "health", "is it a RetReg server"),
        (lambda *_: (502, b"bad gateway"), "", "health", "502"),
        (guarded, "wrong", "token", "wrong"),
        (guarded, "", "token", "missing"),
        (
            lambda path, _: good(path, _) if path != "/v1/models" else (200, b'{"models": 3}'),
            "",
            "models",
            "models",
        ),
    ],
)
def test_an_answer_that_is_wrong_names_its_step(connection, serve, answer, token, name, words):
    steps = connection.test_connection(connection.Connection(serve(answer), token))
    assert (steps[-1].name, steps[-1].ok) == (name, False)
    assert words in steps[-1].sentence


def test_a_server_without_tls_fails_at_tls(connection):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_in_plain_text() -> None:
            for _ in range(2):
                accepted, _address = listener.accept()
                with accepted:
                    accepted.recv(10)
                    accepted.sendall(b"HTTP/1.0 400 Bad\r\n\r\n")

        threading.Thread(target=answer_in_plain_text, daemon=True).start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        steps = connection.test_connection(connection.Connection(url))
    # The first connection is the step before, which says nothing.
    assert (steps[-1].name, steps[-1].ok) == ("TLS", False)
    assert "certificate" in steps[-1].sentence


@pytest.fixture
def https(serve, tmp_path) -> tuple[str, str]:
    """The address of a good server with a certificate of its own making, and the certificate."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return serve(good, context).replace("http:", "https:"), str(certificate)


def test_a_certificate_that_nobody_vouches_for_fails_at_tls(connection, https):
    steps = connection.test_connection(connection.Connection(https[0]))
    assert (steps[-1].name, steps[-1].ok) == ("TLS", False)
    assert "authority" in steps[-1].sentence
    with connection.Connection(https[0]).client() as client, pytest.raises(ServerError) as told:
        client.health()
    assert "certificate" in str(told.value)


def test_an_authority_of_the_system_is_trusted(connection, https, monkeypatch):
    url, certificate = https
    monkeypatch.setenv("SSL_CERT_FILE", certificate)  # the system's, as OpenSSL finds them
    steps = connection.test_connection(connection.Connection(url))
    assert [step.name for step in steps if step.ok] == [*NAMES[:3], "TLS", *NAMES[3:]]
    assert "TLSv1" in steps[3].sentence


def test_an_authority_in_a_file_is_trusted(connection, https):
    chosen = connection.Connection(https[0], "", https[1])
    assert all(step.ok for step in connection.test_connection(chosen))
    with chosen.client() as client:
        assert client.health()


def test_behind_a_proxy_the_first_steps_lead_to_the_proxy(connection, serve, monkeypatch):
    asked = []

    def proxy(path: str, token: str | None) -> tuple[int, bytes]:
        asked.append(path)
        return good("/" + path.split("/", 3)[3], token)

    monkeypatch.setenv("http_proxy", serve(proxy))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    steps = connection.test_connection(connection.Connection("http://no-such-host.invalid"))
    assert [step.name for step in steps if step.ok] == NAMES
    assert "proxy" in steps[1].sentence
    assert asked[0] == "http://no-such-host.invalid/healthz"


def test_address_and_token_are_remembered_together(connection):
    settings: dict[str, str] = {}
    assert connection.load_connection(settings) is None
    whole = connection.Connection("https://a.example", "secret", "/etc/hospital.pem")
    connection.save_connection(settings, whole)
    assert connection.load_connection(settings) == whole
    connection.save_connection(settings, connection.Connection("https://b.example"))
    assert not {"secret", "/etc/hospital.pem"} & set(settings.values())


def test_the_token_does_not_show_in_what_is_printed(connection):
    assert "secret" not in repr(connection.Connection("https://a.example", "secret"))


def test_an_unusable_address_is_told_when_a_client_is_made(connection):
    with pytest.raises(InputError, match="write it like"):
        connection.Connection("localhost").client()


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("http://127.0.0.1:8600", True),
        ("http://[::1]:8600", True),
        ("http://localhost", True),
        ("http://127.0.0.1.evil.example", False),
        ("http://localhost.example", False),
        ("http://10.0.0.1", False),
        ("nonsense", False),
        ("http://[half", False),
    ],
)
def test_only_this_machine_needs_no_consent(connection, consent, url, is_local):
    chosen = connection.Connection(url)
    assert chosen.is_local is is_local
    assert consent({}).is_needed(chosen) is not is_local


def test_consent_is_asked_once_for_each_server_and_can_be_withdrawn(connection, consent):
    settings: dict[str, str] = {}
    first = connection.Connection("https://a.example:8600", "token")
    consent(settings).give(first)
    consent(settings).give(connection.Connection("https://c.example"))
    later = consent(settings)
    assert not later.is_needed(connection.Connection("https://A.example:8600/path"))
    for other in ("https://a.example:8601", "http://a.example:8600", "https://b.example:8600"):
        assert later.is_needed(connection.Connection(other))
    later.withdraw(first)
    assert later.is_needed(first)
    assert not later.is_needed(connection.Connection("https://c.example"))


def test_the_question_says_what_is_sent_where_and_how(connection, consent):
    question = consent({}).question(connection.Connection("https://a.example"))
    for words in ("voxels", "geometry", "a.example", "No DICOM header", "encrypted"):
        assert words in question
    assert "NOT encrypted" not in question
    assert "NOT encrypted" in consent({}).question(connection.Connection("http://a.example"))
