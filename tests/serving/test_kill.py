"""The server is killed in the middle of everything, again and again, and started again."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import requests

from retreg import wire
from retreg.files import write_image
from retreg.geometry import Grid
from retreg.image import Image

ROUNDS, ORDERING, SENDING = 3, 3, 3
HERE = Path(__file__).parent


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server whose temporary and lasting files all lie in the folder."""
    command = [sys.executable, str(HERE / "fake_server.py"), str(folder / "model")]
    command += ["--state-dir", str(folder / "state")]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    places = {"TMPDIR": str(folder / "tmp"), "PYTHONPATH": path}
    environment = os.environ | places
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, process.stdout.readline().split()[-1]
        finally:
            process.kill()


def family(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in tasks for child in path.read_text().split()]


def order_on(url: str, seed: int, told: dict[str, bytes]) -> None:
    """Upload, order and fetch until the server is gone; enters each result that came."""
    rng = random.Random(seed)
    array = np.random.default_rng(seed).integers(0, 99, (1, 20, 30, 40), np.int16)
    header, body = wire.encode_image(Image(array, Grid((40, 30, 20), np.eye(4))))
    address = wire.image_address(header, body)
    with suppress(requests.RequestException), requests.Session() as session:
        while True:
            headers = {wire.IMAGE_HEADER: header}
            session.put(f"{url}/v1/images/{address}", data=body, headers=headers, timeout=10)
            options = {"shift": rng.uniform(0, 99), "steps": rng.choice([0, 0, 1, 20])}
            images = {"fixed": address, "moving": address}
            order = {**images, "model": "auto-volume", "options": options}
            answer = session.post(f"{url}/v1/registrations", json=order, timeout=10)
            if answer.status_code != 202:
                time.sleep(0.05)
                continue
            path = f"/v1/registrations/{answer.json()['id']}"
            with session.get(f"{url}{path}/events", stream=True, timeout=10) as events:
                for _ in events.iter_lines():
                    """Until the job has ended."""
            result = session.get(f"{url}{path}/result", timeout=10)
            if result.status_code == 200:
                told[path] = result.content


def send_files_on(url: str, content: bytes) -> None:
    """Register a file with itself until the server is gone."""
    files = dict.fromkeys(("fixed", "moving"), ("patient.nrrd", content))
    with suppress(requests.RequestException), requests.Session() as session:
        while True:
            session.post(f"{url}/v1/register", files=files, timeout=30)


def test_whatever_a_kill_interrupts_no_result_is_lost_and_no_file_remains(tmp_path):
    for name in ("tmp", "model"):
        (tmp_path / name).mkdir()
    volume = Image(np.ones((1, 9, 9, 9), np.uint8), Grid((9, 9, 9), np.eye(4)))
    write_image(tmp_path / "volume.nrrd", volume)
    content = (tmp_path / "volume.nrrd").read_bytes()
    told: dict[str, bytes] = {}
    rng = random.Random(1)
    for number in range(ROUNDS):
        with serving(tmp_path) as (process, url):
            assert not list((tmp_path / "state" / "scratch").iterdir())
            for path, result in told.items():
                assert requests.get(f"{url}{path}/result", timeout=10).content == result
            known = len(told)
            clients = [
                threading.Thread(target=order_on, args=(url, 10 * number + n, told))
                for n in range(ORDERING)
            ]
            clients += [
                threading.Thread(target=send_files_on, args=(url, content)) for _ in range(SENDING)
            ]
            for client in clients:
                client.start()
            until = time.monotonic() + 30
            while len(told) == known and time.monotonic() < until:
                time.sleep(0.02)
            time.sleep(rng.uniform(0.0, 1.5))
            children = family(process.pid)
            assert children
            process.kill()
            for client in clients:
                client.join()
        until = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in children):
            assert time.monotonic() < until, "a process outlives its server"
            time.sleep(0.05)
        assert not list((tmp_path / "tmp").iterdir())
    assert len(told) >= ROUNDS
    with serving(tmp_path):
        assert not list((tmp_path / "state" / "scratch").iterdir())
