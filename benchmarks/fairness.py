"""Forty clients that order all the time, and one by hand: python benchmarks/fairness.py [SECONDS]

Each client has an address of its own on this machine. Prints how many of each kind's orders were
accepted, and how long they took. Then the waiting time of /healthz, idle and beside 32 clients.
Starts the server of benchmarks/server.py.
"""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import requests
from requests.adapters import HTTPAdapter

import server as bench

GREEDY, HEALTH_CLIENTS, WORK_S, PAUSE_S = 40, 32, 0.05, 0.75


@dataclass
class Orders:
    """What became of the orders of one kind of client. waits_s: of those that were answered."""

    refused: int = 0
    waits_s: list[float] = field(default_factory=list)

    def line(self) -> str:
        """How many were accepted, and how long they took."""
        ordered = len(self.waits_s) + self.refused
        waits = f"mean {np.mean(self.waits_s):.2f} s, longest {max(self.waits_s):.2f} s"
        return f"{len(self.waits_s)} of {ordered} accepted, {waits}"


class FromAddress(HTTPAdapter):
    """Sends from one of the addresses of this machine."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: int, **more: object) -> None:
        """As requests does, with the address."""
        super().init_poolmanager(*args, source_address=(self._address, 0), **more)


def main() -> None:
    """Print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with bench.running() as (url, _):
        crowd(url, seconds)
        health(url)


def crowd(url: str, seconds: float) -> None:
    """Let everybody order for so long."""
    image = bench.noise(0, 16)
    bench.put(url, image)()
    address = bench.address(image)
    greedy, polite, stop = Orders(), Orders(), threading.Event()

    def order_on(number: int) -> None:
        with client(number) as session:
            while not stop.is_set():
                order(session, url, address, greedy)

    with ThreadPoolExecutor(GREEDY) as pool:
        for number in range(GREEDY):
            pool.submit(order_on, 10 + number)
        until = time.monotonic() + seconds
        with client(2) as session:
            while time.monotonic() < until:
                order(session, url, address, polite)
                time.sleep(PAUSE_S)
        stop.set()
    bench.say(f"{GREEDY} greedy clients: {greedy.line()}")
    bench.say(f"one polite client: {polite.line()}")


def client(number: int) -> requests.Session:
    """A client with an address of its own."""
    session = requests.Session()
    session.mount("http://", FromAddress(f"127.0.0.{number}"))
    return session


def order(session: requests.Session, url: str, address: str, orders: Orders) -> None:
    """Order a registration and wait for its end."""
    nonce = time.monotonic_ns() % 2**40
    options = {"seconds": WORK_S, "nonce": nonce}
    message = {"fixed": address, "moving": address, "model": "null", "options": options}
    begun = time.monotonic()
    answer = session.post(f"{url}/v1/registrations", json=message, timeout=300)
    if answer.status_code != 202:
        orders.refused += 1
        return
    path = f"{url}/v1/registrations/{answer.json()['id']}/events"
    with session.get(path, timeout=300) as events:
        if b'"done"' in events.content:
            orders.waits_s.append(time.monotonic() - begun)


def health(url: str) -> None:
    """How long /healthz takes, idle and beside many clients who ask for the state of the server."""
    stop = threading.Event()

    def ask_on(number: int) -> None:
        with client(number) as session:
            while not stop.wait(0.1):
                session.get(f"{url}/v1/models", timeout=60)

    bench.say(f"/healthz, idle: {bench.percentiles(bench.ask(url, '/healthz', 300))}")
    with ThreadPoolExecutor(HEALTH_CLIENTS) as pool:
        for number in range(HEALTH_CLIENTS):
            pool.submit(ask_on, 10 + number)
        waits = bench.percentiles(bench.ask(url, "/healthz", 300))
        stop.set()
    bench.say(f"/healthz beside {HEALTH_CLIENTS} clients: {waits}")


if __name__ == "__main__":
    main()
