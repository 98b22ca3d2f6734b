"""Many clients at once, some of them rude, while the worker is killed."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import requests

from retreg.client import Client
from retreg.errors import InputError, ServerError
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.serving.settings import Settings

REQUESTS, CLIENTS, SIDE = 200, 16, 48


class Enough(Exception):
    """The client does not want the result any more."""


def workers() -> list[int]:
    """The worker processes of the servers in this process."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = {int(pid) for path in children for pid in path.read_text().split()}
    return [pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def settled(url: str) -> str:
    """The numbers of the server when no job waits or runs: some may just have been cancelled."""
    until = time.monotonic() + 20
    while True:
        text = requests.get(f"{url}/metrics", timeout=5).text
        if "retreg_jobs_queued 0.0" in text and "retreg_jobs_running 0.0" in text:
            return text
        assert time.monotonic() < until, text
        time.sleep(0.05)


def is_ready(url: str) -> bool:
    """Whether there is a worker that can be killed."""
    return requests.get(f"{url}/readyz", timeout=5).ok


def ended(text: str) -> Counter[str]:
    """How many jobs have ended in which state."""
    found = re.findall(r'^retreg_jobs_total\{.*state="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return Counter({state: int(float(count)) for state, count in found})


def one(url: str, number: int) -> str:
    """One request of the mix; what came of it."""
    rng = random.Random(number)
    array = np.full((1, SIDE, SIDE, SIDE), number % 20, np.int16)
    image = Image(array, Grid((SIDE,) * 3, np.eye(4)))
    kind = rng.random()

    def leave(stage: str, _fraction: float) -> None:
        if stage == "working":
            raise Enough

    with Client(url) as client:
        try:
            if kind < 0.2:
                client.register(image, image, progress=leave, shift=float(number), steps=500)
                return "answered although cancelled"
            if kind < 0.25:
                client.register(image, image, unheard_of=1)
                return "answered although malformed"
            result = client.register(image, image, shift=float(number), steps=1)
        except Enough:
            return "cancelled"
        except InputError:
            return "refused"
        except ServerError as error:
            return str(error)
    np.testing.assert_allclose(result.transform(np.zeros((1, 3))), [[number, 0, 0]])
    return "done"


def test_two_hundred_requests_of_sixteen_clients_while_the_worker_is_killed_twice(start_server):
    with start_server(Settings(keep_s=1e6, image_store_bytes=2**22)) as server:
        with ThreadPoolExecutor(CLIENTS) as pool:  # buffers and threads of clients and server
            list(pool.map(lambda number: one(server.url, number), range(1000, 1060)))
        before, ended_before = resident_bytes(), ended(settled(server.url))
        found: list[str] = []

        def kill_twice() -> None:
            for share in (0.25, 0.6):
                while len(found) < share * REQUESTS or not is_ready(server.url):
                    time.sleep(0.02)
                for pid in workers():
                    os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_twice)
        killer.start()
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda number: found.append(one(server.url, number)), range(REQUESTS)))
        killer.join()
        counts = {each: found.count(each) for each in set(found)}
        assert set(counts) <= {"done", "cancelled", "refused"}, counts
        assert counts["done"] >= 0.7 * REQUESTS
        text = settled(server.url)
        jobs = ended(text) - ended_before  # each once, but those whose worker was killed
        assert jobs["done"] == counts["done"]
        # A client may leave after its worker was killed, before it has ordered again.
        gone = REQUESTS - counts["refused"] - jobs["done"] - jobs["cancelled"]
        assert 0 <= gone <= jobs["failed"]
        assert jobs["failed"] <= 2
        assert "retreg_worker_restarts_total 2.0" in text
        assert resident_bytes() < 1.1 * before + 2**22  # the images that may be kept
