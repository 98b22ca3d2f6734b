"""How much the server itself costs: python benchmarks/server.py

Starts a server whose model does nothing, in a process of its own, and prints a table. Wall-clock
times depend on what else the machine does; the processor times beside them do not.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests

from retreg import wire
from retreg.client import Client
from retreg.geometry import Grid
from retreg.image import Image

HERE = Path(__file__).parent
SIDE = 256
CLIENTS = 20


def main() -> None:
    """Serve, or measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--echo", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--upload-to", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(say)
    elif args.echo:
        echo()
    elif args.upload_to:
        upload_forever(args.upload_to)
    else:
        measure()


def measure() -> None:
    """Print the table."""
    with running() as (url, pid):
        for name, value in measurements(url, pid):
            say(f"{name:<66}{value}")


@contextmanager
def running(script: str = __file__) -> Iterator[tuple[str, int]]:
    """The address and the process of a server that the script starts with --serve."""
    command = [sys.executable, script, "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


def serve(on_ready: Callable[[str], object], null: bool = True, **settings: Any) -> None:
    """A server; on_ready hears its address. null: with the model that does nothing alone."""
    from retreg_server.commands.serve import listening_socket
    from retreg_server.serving.app import create_app
    from retreg_server.serving.http.server import HttpServer
    from retreg_server.serving.service import executor_of
    from retreg_server.serving.settings import Settings
    from retreg_server.serving.workers.executor import LocalExecutor

    sys.path.insert(0, str(HERE))
    listener = listening_socket("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    chosen = Settings(**settings)
    app = create_app(
        chosen,
        lambda settings, metrics: LocalExecutor(
            settings.devices, metrics.restarts.inc, "null_engine:worker"
        ) if null else executor_of(settings, metrics),
        on_ready=lambda: on_ready(url),
    )  # fmt: skip
    HttpServer(app, chosen).run(sockets=[listener])


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def measurements(url: str, pid: int) -> list[tuple[str, str]]:
    """Name and value of each, one after the other."""
    fixed, moving = [noise(seed, SIDE) for seed in (1, 2)]
    rows = [("idle memory without a model: server, worker", memory(pid))]
    uploads = [timed(lambda seed=seed: put(url, noise(seed, SIDE)), pid) for seed in range(3, 8)]
    rows.append((f"upload of {fixed.array.nbytes / 1e6:.1f} MB, best of 5", best(uploads)))
    bare = [timed(lambda: loopback_copy(fixed.array.nbytes), None) for _ in range(5)]
    rows.append(("  the same bytes through a bare socket, best of 5", best(bare)))
    for image in (fixed, moving):
        put(url, image)()
    with Client(url) as client:
        order = {"fixed": address(fixed), "moving": address(moving), "model": "null"}
        client.models()
        runs = [timed(lambda n=n: job(url, order, n), pid) for n in range(1, 11)]
        rows.append((f"one registration of a {SIDE}³ pair that is there, best of 10", best(runs)))
        again = [timed(lambda: job(url, order, 1), pid) for _ in range(5)]
        rows.append(("  the same, answered before, best of 5", best(again)))
    rows += latencies(url, order, pid)
    return rows


def noise(seed: int, side: int) -> Image:
    """An int16 volume that does not compress."""
    array = np.random.default_rng(seed).integers(0, 2000, (1, side, side, side), np.int16)
    return Image(array, Grid((side,) * 3, np.eye(4)))


def address(image: Image) -> str:
    """The address of an image."""
    return wire.image_address(*wire.encode_image(image))


def put(url: str, image: Image) -> Callable[[], None]:
    """Prepare an upload, so that only sending it is timed."""
    header, body = wire.encode_image(image)
    path = f"{url}/v1/images/{wire.image_address(header, body)}"
    session = requests.Session()
    session.get(f"{url}/healthz", timeout=10)

    def send() -> None:
        headers = {wire.IMAGE_HEADER: header}
        assert session.put(path, data=body, headers=headers, timeout=60).status_code == 201

    return send


def job(url: str, order: dict[str, object], nonce: int, seconds: float = 0.0) -> Callable[[], None]:
    """Prepare a registration, from the order to the parsed result."""
    session = requests.Session()
    session.get(f"{url}/healthz", timeout=10)
    message = {**order, "options": {"nonce": nonce, "seconds": seconds}}

    def run() -> None:
        answer = session.post(f"{url}/v1/registrations", json=message, timeout=60)
        path = f"{url}/v1/registrations/{answer.json()['id']}"
        with session.get(f"{path}/events", stream=True, timeout=60) as events:
            for _ in events.iter_lines():
                pass
        wire.decode_result(wire.loads(session.get(f"{path}/result", timeout=60).content))

    return run


def timed(prepare: Callable[[], Callable[[], None]], pid: int | None) -> tuple[float, float]:
    """Seconds on the wall, and seconds of the processor in the server's processes."""
    work = prepare()
    cpu, wall = processor_seconds(pid), time.perf_counter()
    work()
    return time.perf_counter() - wall, processor_seconds(pid) - cpu


def best(runs: list[tuple[float, float]]) -> str:
    """The shortest time on the wall, and the mean time of the processor."""
    cpu = float(np.mean([each[1] for each in runs]))
    return f"{1000 * min(each[0] for each in runs):7.1f} ms wall {1000 * cpu:7.1f} ms processor"


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(int(each) for path in children for each in path.read_text().split())]


def processor_seconds(pid: int | None) -> float:
    """Of a process and its children, in steps of the system's clock."""
    if pid is None:
        return time.process_time()
    total = 0
    for each in family(pid):
        after_name = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += int(after_name[11]) + int(after_name[12])
    return total / os.sysconf("SC_CLK_TCK")


def schedule(pid: int) -> tuple[float, float]:
    """Seconds that the first thread of a process ran, and waited for a processor."""
    ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(ran) / 1e9, int(waited) / 1e9


def memory(pid: int) -> str:
    """Resident memory of a process and its children."""
    pages = [int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in family(pid)]
    return " + ".join(f"{4096 * each / 1e6:.0f}" for each in pages) + " MB"


def loopback_copy(nbytes: int) -> Callable[[], None]:
    """Prepare to send bytes to a thread that only hashes them."""
    import socket

    listener = socket.create_server(("127.0.0.1", 0))

    def drink() -> None:
        connection, _ = listener.accept()
        digest = hashlib.sha256()
        while part := connection.recv(1 << 18):
            digest.update(part)

    def send() -> None:
        thread = threading.Thread(target=drink)
        thread.start()
        with socket.create_connection(listener.getsockname()) as connection:
            connection.sendall(bytes(nbytes))
        thread.join()
        listener.close()

    return send


def latencies(url: str, order: dict[str, object], pid: int) -> list[tuple[str, str]]:
    """Waiting times for the quick routes: alone, and beside a job and clients that upload.

    The uploads come from another process, and a process that only echoes is asked meanwhile: what
    it needs is the share of the machine, not of the server.
    """
    rows = [(f"GET {path}, idle", percentiles(ask(url, path, 200))) for path in QUICK]
    uploads = subprocess.Popen([sys.executable, __file__, "--upload-to", url])
    busy = threading.Thread(target=job(url, order, 99, 8.0))
    busy.start()
    time.sleep(2)
    beside = f"beside a job and {CLIENTS} uploads"
    ran, waited, begun = *schedule(pid), time.perf_counter()
    for path in QUICK:
        rows.append((f"GET {path}, {beside}", percentiles(ask(url, path, 150))))
    shares = (np.array(schedule(pid)) - (ran, waited)) / (time.perf_counter() - begun)
    text = f"ran {shares[0]:.0%}, was ready to run but had to wait {shares[1]:.0%} of the time"
    rows.append(("  the event loop meanwhile", text))
    rows.append((f"  an echo through a bare socket, {beside}", percentiles(echo_waits(150))))
    uploads.terminate()
    uploads.wait()
    busy.join()
    return rows


def echo_waits(count: int) -> list[float]:
    """Milliseconds for a byte to another process and back."""
    command = [sys.executable, __file__, "--echo"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        waits = []
        for _ in range(count):
            begun = time.perf_counter()
            process.stdin.write(b"x")
            process.stdin.flush()
            process.stdout.read(1)
            waits.append(1000 * (time.perf_counter() - begun))
            time.sleep(0.01)
        process.kill()
    return waits[1:]


def echo() -> None:
    """Send back each byte."""
    while byte := os.read(0, 1):
        os.write(1, byte)


def upload_forever(url: str) -> None:
    """Be many clients that upload."""
    for number in range(CLIENTS):
        threading.Thread(target=upload_on, args=(url, number), daemon=True).start()
    threading.Event().wait()


QUICK = ("/healthz", "/v1/info")


def ask(url: str, path: str, count: int) -> list[float]:
    """Milliseconds of each of many requests."""
    waits = []
    with requests.Session() as session:
        for _ in range(count):
            begun = time.perf_counter()
            session.get(url + path, timeout=30)
            waits.append(1000 * (time.perf_counter() - begun))
            time.sleep(0.01)
    return waits


def percentiles(waits: list[float]) -> str:
    """The median and the 99th."""
    return f"median {np.median(waits):6.1f} ms, 99th percentile {np.percentile(waits, 99):6.1f} ms"


def upload_on(url: str, number: int) -> None:
    """One client that uploads 4 MB each time, ten times a second at most."""
    image = noise(100 + number, 128)
    while True:
        put(url, image)()
        time.sleep(0.1)


if __name__ == "__main__":
    main()
