"""The client against servers that misbehave."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from retreg import wire
from retreg.client import Client
from retreg.errors import Cancelled, InputError, RetRegError, ServerError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Affine

JOB = "0" * 32
Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def scripted(answer: Callable[[str, str], Answer]) -> Iterator[str]:
    """A server that answers as told; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = answer(self.command, self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def a_result() -> bytes:
    none = Keypoints(np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool))
    result = RegistrationResult(Affine.identity(), none, none, Quality({}, "accept", "Yes."), {})
    return wire.dumps(wire.encode_result(result))


def an_image() -> Image:
    return Image(np.zeros((1, 1, 4, 4), np.uint8), Grid.of_picture(4, 4))


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8600", "localhost", "ftp://x", "http://", "", "http://[half", "http://me:secret@host"]
)
def test_an_unusable_address_is_refused_at_once(url):
    with pytest.raises(InputError, match="http://127"):
        Client(url)


def test_a_server_that_does_not_run_is_told_in_a_sentence():
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServerError, match="can be reached"):
        client.health()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((200, {}, b"<html>"), "RetReg server"),
        ((200, {}, b"[1]"), "RetReg server"),
        ((502, {}, b"<html>bad gateway"), "status 502"),
        ((302, {"Location": "http://elsewhere.example/"}, b""), "status 302"),
        ((503, {}, b'{"error": "not-ready", "message": "Wait."}'), "Wait"),
    ],
)
def test_an_answer_that_is_not_ours_is_told_in_a_sentence(answer, sentence):
    with (
        scripted(lambda *_: answer) as url,
        Client(url) as client,
        pytest.raises(ServerError, match=sentence),
    ):
        client.models()


def test_a_server_that_says_nothing_times_out():
    def answer(_method: str, _path: str) -> Answer:
        time.sleep(1)
        return 200, {}, b""

    with (
        scripted(answer) as url,
        Client(url, read_timeout_s=0.2) as client,
        pytest.raises(ServerError, match=r"0\.2 s"),
    ):
        client.health()


def test_an_event_stream_that_is_cut_is_taken_up_again():
    asked = []

    def answer(method: str, path: str) -> Answer:
        asked.append((method, path.rsplit("/", 1)[-1]))
        if method in ("HEAD", "PUT"):
            return 200, {}, b""
        if method == "POST":
            return 202, {}, json.dumps({"id": JOB}).encode()
        if path.endswith("/result"):
            return 200, {}, a_result()
        state = "done" if asked.count(("GET", "events")) == 3 else "running"
        event = json.dumps({"state": state, "stage": "net", "fraction": 0.5})
        return 200, {"Content-Type": "text/event-stream"}, f"data: {event}\n\n: cut".encode()

    told = []
    with scripted(answer) as url, Client(url) as client:
        client.register(an_image(), an_image(), progress=lambda *stage: told.append(stage))
    assert asked.count(("GET", "events")) == 3
    assert told.count(("net", 0.5)) == 2


def test_a_result_that_is_damaged_is_refused_and_the_job_given_up():
    asked = []

    def answer(method: str, path: str) -> Answer:
        asked.append(method)
        if method in ("HEAD", "DELETE"):
            return 200, {}, b""
        if method == "POST":
            return 202, {}, json.dumps({"id": JOB}).encode()
        if path.endswith("/result"):
            return 200, {}, a_result().replace(b"affine", b"magic")
        return 200, {}, b'data: {"state": "done"}\n\n'

    with scripted(answer) as url, Client(url) as client, pytest.raises(InputError, match="magic"):
        client.register(an_image(), an_image())
    assert asked[-1] == "DELETE"


@pytest.mark.parametrize(
    ("stage", "status", "body"),
    [
        ("POST", 202, b"<html>"),
        ("POST", 202, b'{"id": 3}'),
        ("POST", 202, b'{"id": "../../v1/info"}'),
        ("events", 200, b"data: 3\n\n"),
        ("events", 200, b"data: <html>\n\n"),
        ("result", 200, b"[1]"),
        ("result", 200, b"\xff"),
    ],
)
def test_garbage_at_any_stage_is_told_in_a_sentence(stage, status, body):
    def answer(method: str, path: str) -> Answer:
        if stage in (method, path.rsplit("/", 1)[-1]):
            return status, {}, body
        if method == "POST":
            return 202, {}, json.dumps({"id": JOB}).encode()
        state = b'data: {"state": "running", "fraction": "half"}\n\ndata: {"state": "done"}\n\n'
        return 200, {}, a_result() if path.endswith("/result") else state

    with scripted(answer) as url, Client(url) as client, pytest.raises(RetRegError) as told:
        client.register(an_image(), an_image())
    assert str(told.value).endswith(("?", "."))


def test_an_answer_that_cannot_be_inflated_is_told_in_a_sentence():
    def answer(method: str, path: str) -> Answer:
        if method == "POST":
            return 202, {}, json.dumps({"id": JOB}).encode()
        encoding = {"Content-Encoding": "gzip"} if path.endswith("/result") else {}
        return 200, encoding, b'data: {"state": "done"}\n\n'

    with scripted(answer) as url, Client(url) as client, pytest.raises(ServerError):
        client.register(an_image(), an_image())


def test_a_slow_network_may_take_longer_than_one_timeout_for_an_image():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=read_slowly, args=(listener,), daemon=True).start()
        image = Image(np.zeros((1, 180, 256, 256), np.uint8), Grid((256, 256, 180), np.eye(4)))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        told, begun = [], time.monotonic()
        with (
            Client(url, connect_timeout_s=0.8, busy_timeout_s=0) as client,
            pytest.raises(ServerError, match="slow enough"),
        ):
            client.register(image, image, progress=lambda *stage: told.append(stage))
        assert time.monotonic() - begun > 0.8
    fractions = [done for stage, done in told if stage == "sending the fixed image"]
    assert fractions == sorted(fractions)
    assert len(set(fractions)) >= 4


def read_slowly(listener: socket.socket) -> None:
    """Says that an image is missing, takes it at a trickle, and refuses it."""
    for answer in (b"404 Not Found", b"507 Full"):
        connection, _ = listener.accept()
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(2**12)
            head, _, body = head.partition(b"\r\n\r\n")
            length = int((re.findall(rb"Content-Length: (\d+)", head) or [0])[0])
            left = length - len(body)
            while left > 0:
                left -= len(connection.recv(min(left, 2**16)))
                time.sleep(0.005)
            text = b'{"error": "full", "message": "That was slow enough."}'
            connection.sendall(b"HTTP/1.1 %b\r\nConnection: close\r\n\r\n" % answer)
            connection.sendall(text if length else b"")


def test_a_registration_is_cancelled_from_another_thread():
    cancelled = threading.Event()

    def answer(method: str, path: str) -> Answer:
        if method == "POST":
            return 202, {}, json.dumps({"id": JOB}).encode()
        if method == "DELETE":
            cancelled.set()
            return 204, {}, b""
        if path.endswith("/events"):
            client.cancel()  # as the thread of a window would
            assert cancelled.is_set()
            return 200, {}, b'data: {"state": "cancelled"}\n\n'
        if path.endswith("/result"):
            return 409, {}, b'{"error": "cancelled", "message": "Stopped on request."}'
        return 200, {}, b""

    with scripted(answer) as url, Client(url, "token") as client:
        client.cancel()  # nothing is under way
        assert not cancelled.is_set()
        with pytest.raises(Cancelled, match="Stopped"):
            client.register(an_image(), an_image())


def test_proxies_are_not_used_for_this_machine(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with scripted(lambda *_: (200, {}, b'{"status": "ok"}')) as url, Client(url) as client:
        assert client.health() == {"status": "ok"}


def test_voxels_that_cannot_be_sent_are_refused_before_anything_is_asked():
    image = Image(np.zeros((1, 1, 2, 2), np.longdouble), Grid.of_picture(2, 2))
    with Client("http://127.0.0.1:9") as client, pytest.raises(InputError, match="cannot be sent"):
        client.register(image, image)
