"""The client against servers that are silent, drip, never end, end too early or send a bomb."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from retreg import wire
from retreg.client import Client
from retreg.errors import Cancelled, InputError, ServerError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Affine

JOB = json.dumps({"id": "0" * 32}).encode()
DONE = b'data: {"state": "done"}\n\n'
STAGES = ("HEAD", "PUT", "POST", "events", "result")
IMAGE = Image(np.zeros((1, 1, 4, 4), np.uint8), Grid.of_picture(4, 4))
Send = Callable[[bytes], None]


def a_result() -> bytes:
    none = Keypoints(np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool))
    result = RegistrationResult(Affine.identity(), none, none, Quality({}, "accept", "Yes."), {})
    return wire.dumps(wire.encode_result(result))


def stage_of(method: str, path: str) -> str:
    last = path.rsplit("/", 1)[-1]
    return last if last in STAGES else method


def whole(body: bytes, status: int = 200, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def usual(stage: str) -> bytes:
    """What a server in order answers."""
    answers = {"HEAD": (b"", 404), "PUT": (b"{}", 201), "POST": (JOB, 202), "events": (DONE, 200),
               "result": (a_result(), 200)}  # fmt: skip
    return whole(*answers.get(stage, (b"", 204)))


class Listening:
    """A server of sockets: answer(stage, send) writes what it likes, in a thread of its own."""

    def __init__(self, answer: Callable[[str, Send], None], port: int = 0) -> None:
        self._answer = answer
        self.stages: list[str] = []
        self.over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as reader:
            method, path, _ = reader.readline().decode().split()
            length = 0
            while (line := reader.readline().strip().lower()) != b"":
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            reader.read(length)
            self.stages.append(stage_of(method, path))
            self._answer(self.stages[-1], connection.sendall)


@contextmanager
def listening(answer: Callable[[str, Send], None]) -> Iterator[Listening]:
    server = Listening(answer)
    try:
        yield server
    finally:
        server.close()


def silence(_: Send, over: threading.Event) -> None:
    over.wait(20)


def dripping(send: Send, over: threading.Event) -> None:
    send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not over.wait(0.05):
        send(b" ")


def dripping_head(send: Send, over: threading.Event) -> None:
    send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not over.wait(0.05):
        send(b"a")


def endless(send: Send, over: threading.Event) -> None:
    send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not over.is_set():
        send(bytes(2**16))


def bomb(send: Send, _: threading.Event) -> None:
    body = gzip.compress(bytes(2**26))
    send(whole(body, 200, "Content-Encoding: gzip\r\n"))


def endless_events(send: Send, over: threading.Event) -> None:
    send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not over.wait(0.001):
        send(b'data: {"state": "running", "stage": "net", "fraction": 0.5}\n\n' * 100)


@pytest.mark.parametrize("trick", [silence, dripping, dripping_head, endless, bomb])
@pytest.mark.parametrize("stage", ["GET", "POST", "events", "result"])
def test_no_answer_takes_more_than_its_time_or_memory(monkeypatch, stage, trick):
    monkeypatch.setattr("retreg.client.LARGEST_RESULT", 2**24)
    monkeypatch.setattr("retreg.client.RECONNECTS", 1)

    def answer(found: str, send: Send) -> None:
        if found == stage:
            trick(send, server.over)
        else:
            send(usual(found))

    times = {"read_timeout_s": 0.4, "answer_timeout_s": 0.6, "connect_timeout_s": 0.2}
    begun = time.monotonic()
    with (
        listening(answer) as server,
        Client(server.url, restart_timeout_s=0, **times) as client,
        pytest.raises(ServerError, match=r"[.?]$"),
    ):
        client.health() if stage == "GET" else client.register(IMAGE, IMAGE)
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize(
    ("stage", "trick"),
    [(stage, trick) for stage in STAGES for trick in (silence, dripping)]
    + [("events", endless_events)],
)
@pytest.mark.parametrize("way", ["cancel", "progress"])
def test_a_cancellation_bites_whatever_the_server_does(stage, trick, way):
    reached = threading.Event()

    def answer(found: str, send: Send) -> None:
        if found == stage:
            reached.set()
            trick(send, server.over)
        else:
            send(usual(found))

    class Enough(Exception):
        pass

    def progress(*_: object) -> None:
        if way == "progress" and reached.is_set():
            raise Enough

    def cancel() -> None:
        reached.wait(10)
        client.cancel()

    with listening(answer) as server, Client(server.url) as client:
        begun = time.monotonic()
        if way == "cancel":
            threading.Thread(target=cancel, daemon=True).start()
        with pytest.raises(Cancelled if way == "cancel" else Enough):
            client.register(IMAGE, IMAGE, progress=progress)
        assert time.monotonic() - begun < 5


def test_a_client_that_was_cancelled_can_be_used_again():
    calm = threading.Event()

    def answer(found: str, send: Send) -> None:
        if found == "POST" and not calm.is_set():
            client.cancel()
            server.over.wait(5)
        send(usual(found))

    with listening(answer) as server, Client(server.url) as client:
        with pytest.raises(Cancelled):
            client.register(IMAGE, IMAGE)
        client.cancel()  # nothing is under way
        calm.set()
        assert client.register(IMAGE, IMAGE).quality.verdict == "accept"


def ended(slug: str) -> bytes:
    error = {"error": slug, "message": "It ended."}
    return b"data: " + json.dumps({"state": "failed", "error": error}).encode() + b"\n\n"


@pytest.mark.parametrize("slug", ["interrupted", "worker-died"])
@pytest.mark.parametrize("tells", ["events", "result"])
def test_what_ended_without_an_answer_is_ordered_again(slug, tells):
    def answer(found: str, send: Send) -> None:
        is_first = server.stages.count("POST") == 1
        if is_first and found == "events":
            send(whole(ended(slug) if tells == "events" else DONE))
        elif is_first and found == "result":
            send(whole(json.dumps({"error": slug, "message": "It ended."}).encode(), 500))
        else:
            send(usual(found))

    with listening(answer) as server, Client(server.url) as client:
        assert client.register(IMAGE, IMAGE).quality.verdict == "accept"
    assert server.stages.count("POST") == 2


@pytest.mark.parametrize(("slug", "orders"), [("interrupted", 6), ("worker-died", 3)])
def test_images_that_end_every_worker_are_not_ordered_for_ever(slug, orders):
    def answer(found: str, send: Send) -> None:
        send(whole(ended(slug)) if found == "events" else usual(found))

    with (
        listening(answer) as server,
        Client(server.url) as client,
        pytest.raises(ServerError, match="It ended"),
    ):
        client.register(IMAGE, IMAGE)
    assert server.stages.count("POST") == orders


def test_a_result_that_is_cut_is_fetched_again():
    def answer(found: str, send: Send) -> None:
        is_cut = found == "result" and server.stages.count("result") < 3
        send(usual(found)[:150] if is_cut else usual(found))

    with listening(answer) as server, Client(server.url) as client:
        assert client.register(IMAGE, IMAGE).quality.verdict == "accept"
    assert server.stages.count("POST") == 1


@pytest.mark.parametrize("first_words", [b"", ended("interrupted"), b"data: "])
def test_a_server_that_starts_again_is_waited_for(first_words):
    stages: list[str] = []

    def dying(found: str, send: Send) -> None:
        if found != "events":
            send(usual(found))
            return
        send(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + first_words)
        first.close()
        threading.Timer(1.0, start).start()

    def start() -> None:
        second = Listening(living, first.port)
        servers.append(second)

    def living(found: str, send: Send) -> None:
        stages.append(found)
        if found == "events" and "POST" not in stages:  # it has heard of no registration
            message = {"error": "unknown-registration", "message": "There is none."}
            send(whole(json.dumps(message).encode(), 404))
        else:
            send(usual(found))

    first = Listening(dying)
    servers = [first]
    try:
        with Client(first.url, restart_timeout_s=15) as client:
            assert client.register(IMAGE, IMAGE).quality.verdict == "accept"
    finally:
        servers[-1].close()
    assert stages.count("POST") == 1


def test_a_server_that_does_not_come_back_is_given_up():
    def answer(found: str, send: Send) -> None:
        if found == "events":
            server.close()
        else:
            send(usual(found))

    server = Listening(answer)
    begun = time.monotonic()
    with (
        Client(server.url, restart_timeout_s=1) as client,
        pytest.raises(ServerError, match="can be reached"),
    ):
        client.register(IMAGE, IMAGE)
    assert 1 < time.monotonic() - begun < 8


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nnothing\n"])
def test_a_file_that_holds_no_authority_is_refused(tmp_path: Path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"ca\.pem holds no certificates"):
        Client("https://example.org", ca_file=path)
