"""The client against servers that misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from retreg import wire
from retreg.client import Client
from retreg.errors import InputError, ServerError
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
    "url", ["127.0.0.1:8600", "localhost", "ftp://x", "http://", "", "http://me:secret@host"]
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


def test_proxies_are_not_used_for_this_machine(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with scripted(lambda *_: (200, {}, b'{"status": "ok"}')) as url, Client(url) as client:
        assert client.health() == {"status": "ok"}


def test_voxels_that_cannot_be_sent_are_refused_before_anything_is_asked():
    image = Image(np.zeros((1, 1, 2, 2), np.longdouble), Grid.of_picture(2, 2))
    with Client("http://127.0.0.1:9") as client, pytest.raises(InputError, match="cannot be sent"):
        client.register(image, image)
