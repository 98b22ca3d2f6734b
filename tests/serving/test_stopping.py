"""A server that is stopped: everyone hears of it at once, in time, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fake_engine
import numpy as np
import pytest
import requests

from retreg import wire
from retreg.files import write_image
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import ModelInfo
from retreg_server.cli import main
from retreg_server.serving.errors import ApiError
from retreg_server.serving.service import Service
from retreg_server.serving.settings import Settings
from retreg_server.serving.storage.job_store import PREFIX

MODEL = "auto-brain"
HERE = Path(__file__).parent
VOLUME = Image(np.ones((1, 9, 9, 9), np.uint8), Grid((9, 9, 9), np.eye(4)))


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server that keeps its results in a temporary folder; all it makes lies in the folder."""
    for name in ("tmp", "model"):
        (folder / name).mkdir(exist_ok=True)
    command = [sys.executable, str(HERE / "fake_server.py"), str(folder / "model"), *flags]
    environment = os.environ | {"TMPDIR": str(folder / "tmp"), "PYTHONPATH": os.pathsep.join(
        [str(HERE), os.environ.get("PYTHONPATH", "")]
    )}  # fmt: skip
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            yield process, process.stdout.readline().split()[-1]
        finally:
            process.kill()


class Asking(threading.Thread):
    """Asks on a thread of its own; keeps the answer, and when it ended."""

    def __init__(self, ask: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._ask = ask
        self.start()

    def run(self) -> None:
        self.answer = self._ask()
        self.ended = time.monotonic()


def order(url: str, **options: object) -> str:
    header, body = wire.encode_image(VOLUME)
    address = wire.image_address(header, body)
    headers = {wire.IMAGE_HEADER: header}
    requests.put(f"{url}/v1/images/{address}", data=body, headers=headers, timeout=10)
    message = {"fixed": address, "moving": address, "model": MODEL, "options": options}
    answer = requests.post(f"{url}/v1/registrations", json=message, timeout=10)
    return f"{url}/v1/registrations/{answer.json()['id']}"


def last_event(job: str) -> dict:
    with requests.get(f"{job}/events", stream=True, timeout=20) as answer:
        return json.loads([line for line in answer.iter_lines() if line][-1][5:])


def half_an_upload(url: str) -> bytes:
    """What a client hears that has sent a part of an image and no more."""
    host, port = url.removeprefix("http://").split(":")
    header, _ = wire.encode_image(VOLUME)
    head = [f"PUT /v1/images/{'0' * 64} HTTP/1.1", f"Host: {host}:{port}", "Content-Length: 729"]
    head += [f"{wire.IMAGE_HEADER}: {header}", "", "half"]
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall("\r\n".join(head).encode())
        heard = b""
        while part := connection.recv(4096):
            heard += part
    return heard


def registered(url: str, path: Path, **options: str) -> requests.Response:
    content = path.read_bytes()
    files = dict.fromkeys(("fixed", "moving"), ("a.nrrd", content))
    fields = {"model": MODEL, **options}
    return requests.post(f"{url}/v1/register", files=files, data=fields, timeout=20)


def test_everyone_hears_of_the_end_and_it_comes_in_time(tmp_path):
    write_image(tmp_path / "volume.nrrd", VOLUME)
    with serving(tmp_path, "--stop-grace-s", "2") as (process, url):
        hanging = order(url, kind="hang")
        while requests.get(hanging, timeout=5).json()["state"] == "queued":
            time.sleep(0.02)
        watching = [Asking(lambda job=job: last_event(job)) for job in (hanging, hanging)]
        behind = order(url, shift=1.0)
        watching.append(Asking(lambda: last_event(behind)))
        waiting = Asking(lambda: registered(url, tmp_path / "volume.nrrd", shift="2"))
        sending = Asking(lambda: half_an_upload(url))
        while "jobs_queued 2.0" not in requests.get(f"{url}/metrics", timeout=20).text:
            assert waiting.is_alive()
            time.sleep(0.02)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert time.monotonic() - begun < 6.0  # 2.5 where the cores are free, 9 when it is twice
        for each in (*watching, waiting, sending):
            each.join(5)
    for each in watching:
        assert each.answer["error"]["error"] == "interrupted"
        assert each.ended - begun < 2.0
    assert (waiting.answer.status_code, waiting.answer.json()["error"]) == (503, "interrupted")
    assert sending.answer.startswith(b"HTTP/1.1 503 ")
    assert b'"interrupted"' in sending.answer
    assert max(waiting.ended, sending.ended) - begun < 4.0
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert not list((tmp_path / "tmp").iterdir())


def test_a_registration_that_ends_within_the_grace_is_answered(tmp_path):
    write_image(tmp_path / "volume.nrrd", VOLUME)
    with serving(tmp_path, "--stop-grace-s", "20") as (process, url):
        waiting = Asking(lambda: registered(url, tmp_path / "volume.nrrd", steps="100"))
        while "jobs_running 1.0" not in requests.get(f"{url}/metrics", timeout=20).text:
            assert waiting.is_alive()
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        waiting.join(5)
    assert waiting.answer.status_code == 200
    assert waiting.answer.json()["quality"]["verdict"] == "accept"


def test_a_server_that_is_stopped_while_it_loads_leaves_no_folder(tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "model").mkdir()
    command = [sys.executable, str(HERE / "fake_server.py"), str(tmp_path / "model")]
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not list((tmp_path / "tmp").glob(f"{PREFIX}*")) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert "Traceback" not in process.stderr.read()
    assert not list((tmp_path / "tmp").iterdir())


def test_a_server_that_cannot_begin_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")
    flags = ["--port", "0", "--tls-cert", str(bad), "--tls-key", str(bad)]
    assert main(["serve", *flags]) == 2
    assert "TLS" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pem"]


class SlowExecutor:
    """Takes a moment to load."""

    ready = 0

    async def start(self) -> tuple[ModelInfo, ...]:
        await asyncio.sleep(0.3)
        return fake_engine.fake_models()

    def close(self) -> None:
        """Nothing runs."""


def test_who_asks_while_the_models_load_is_told_to_come_back(monkeypatch):
    monkeypatch.setattr("retreg_server.serving.service.START_WAIT_S", 0.05)

    async def ask() -> tuple[ApiError, int]:
        service = Service(Settings(), lambda *_: SlowExecutor())
        warm = asyncio.create_task(service.warm_up())
        await asyncio.sleep(0)
        try:
            with pytest.raises(ApiError) as told:
                await service.models()
            await warm
            return told.value, len(await service.models())
        finally:
            await service.close()

    error, count = asyncio.run(ask())
    assert (error.status, error.slug, count) == (503, "not-ready", 3)
    assert int(error.headers["Retry-After"]) >= 1
