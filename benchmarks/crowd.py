"""Ten thousand of everything: python benchmarks/crowd.py

Opens 10,000 sessions with an image each, then 10,000 connections that say nothing, and prints what
the server needs meanwhile. Starts the server of benchmarks/server.py.
"""

from __future__ import annotations

import io
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import requests
from PIL import Image as Picture

import server as bench

MANY, CLIENTS = 10_000, 8
SPARE = 200  # descriptors for everything else


def main() -> None:
    """Print the table."""
    allow_many_files()
    with bench.running() as (url, pid):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, allow_many_files())
        bench.say(f"{'memory before':<50}{bench.memory(pid)}")
        sessions(url)
        bench.say(f"{'memory with the sessions':<50}{bench.memory(pid)}")
        connections(url)
        bench.say(f"{'memory afterwards':<50}{bench.memory(pid)}")


def allow_many_files() -> tuple[int, int]:
    """Raise the limit of open files as far as it goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard, hard


def sessions(url: str) -> None:
    """Open them, and see that the last one and the routes answer."""
    local = threading.local()

    def open_one(number: int) -> str:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        buffer = io.BytesIO()
        Picture.fromarray(np.full((8, 8), number % 256, np.uint8)).save(buffer, "PNG")
        files = {"files": (f"{number}.png", buffer.getvalue())}
        answer = local.session.put(f"{url}/session/", files=files, timeout=60)
        return str(answer.json()["session_id"])

    begun = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        ids = list(pool.map(open_one, range(MANY)))
    seconds = time.perf_counter() - begun
    bench.say(f"{f'{MANY} sessions by {CLIENTS} clients':<50}{seconds:.0f} s")
    there = [requests.get(f"{url}/session/{each}", timeout=10).ok for each in (ids[0], ids[-1])]
    bench.say(f"{'the first and the last are there':<50}{there[0]}, {there[1]}")
    bench.say(f"{'GET /healthz':<50}{bench.percentiles(bench.ask(url, '/healthz', 100))}")


def connections(url: str) -> None:
    """Keep as many as the system allows, and ask through one more."""
    host, port = url.removeprefix("http://").split(":")
    count = min(MANY, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE)
    held: list[socket.socket] = []
    with suppress(OSError):
        for _ in range(count):
            held.append(socket.create_connection((host, int(port)), 10))
    waits = bench.percentiles(bench.ask(url, "/healthz", 100))
    bench.say(f"{f'GET /healthz beside {len(held)} silent connections':<50}{waits}")
    for each in held:
        each.close()


if __name__ == "__main__":
    main()
