"""Registrations in an hour at one server: python benchmarks/throughput.py [--jobs 32]

Serves the real models in a process of its own and lets 1, 4, 16 and 64 clients order registrations
of simulated eyes, as many in all each time. Prints for each number of clients how many the server
would do in an hour, how long a client waits, and the processor seconds of one: they stay the same,
and only the wait grows, when the cores are full.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count

import numpy as np

import server as bench
from retreg.client import Client
from retreg.image import Image
from retreg_server.phantoms.fundus import make_fundus_pair

CLIENTS = (1, 4, 16, 64)
SIDE = 512


def main() -> None:
    """Serve, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=32, help="registrations for each row")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        bench.serve(bench.say, null=False, queue_size=max(CLIENTS))
        return
    with bench.running(__file__) as (url, pid):
        pairs = distinct_pairs()
        ordered(url, next(pairs))  # loads the model
        bench.say(f"{os.cpu_count()} cores, pictures of {SIDE} pixels, {args.jobs} jobs a row")
        bench.say(f"{'clients':>8}{'in an hour':>12}{'wait, s':>10}{'processor s each':>20}")
        for clients in CLIENTS:
            bench.say(row(url, pid, clients, [next(pairs) for _ in range(args.jobs)]))


def distinct_pairs() -> Iterator[tuple[Image, Image]]:
    """The same eye with other noise each time, so that no answer is known already."""
    pair = make_fundus_pair(1, size=SIDE, rotation_deg=20, elastic_px=0)
    for seed in count():
        noise = np.random.default_rng(seed).integers(-2, 3, pair.moving.array.shape)
        noisy = np.clip(pair.moving.array + noise, 0, 255).astype(np.uint8)
        yield pair.fixed, replace(pair.moving, array=noisy)


def ordered(url: str, pair: tuple[Image, Image]) -> float:
    """The seconds that a client waits for one registration."""
    start = time.perf_counter()
    with Client(url) as client:
        assert client.register(*pair, "auto-fundus").quality.verdict == "accept"
    return time.perf_counter() - start


def row(url: str, pid: int, clients: int, pairs: list[tuple[Image, Image]]) -> str:
    """One line of the table."""
    wall, cpu = time.perf_counter(), bench.processor_seconds(pid)
    with ThreadPoolExecutor(clients) as pool:
        waits = list(pool.map(lambda pair: ordered(url, pair), pairs))
    wall, cpu = time.perf_counter() - wall, bench.processor_seconds(pid) - cpu
    per_hour = 3600 * len(pairs) / wall
    return f"{clients:>8}{per_hour:>12.0f}{statistics.mean(waits):>10.2f}{cpu / len(pairs):>20.2f}"


if __name__ == "__main__":
    main()
