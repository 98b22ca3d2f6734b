"""The obedient server as a process of its own, and its numbers."""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import requests
from obedient_server import TOKEN

from retreg import wire
from retreg.server_process import ServerProcess

SCRIPT = Path(__file__).with_name("obedient_server.py")


@dataclass
class Server:
    """The obedient server."""

    url: str
    process: ServerProcess
    folder: Path

    @property
    def last_headers(self) -> list[wire.ImageHeader]:
        """Of the fixed and of the moving image that reached the model last."""
        number = len(list(self.folder.glob("*.json"))) - 1
        message = wire.loads((self.folder / f"{number}.json").read_bytes())
        return [wire.decode_header(text, 2**30) for text in message["headers"]]

    def number(self, name: str) -> float:
        """The sum of a metric over the labels that the pattern allows."""
        head = {"Authorization": f"Bearer {TOKEN}"}
        text = requests.get(f"{self.url}/metrics", headers=head, timeout=10).text
        return sum(float(value) for value in re.findall(rf"^{name} ([\d.e+]+)$", text, re.M))

    @property
    def puts(self) -> float:
        return self.number(r'retreg_request_seconds_count\{method="PUT".*\}')

    def wait_until(self, name: str, value: float, limit_s: float = 5.0) -> float:
        begun = time.monotonic()
        while self.number(name) != value:
            assert time.monotonic() - begun < limit_s, f"{name} is {self.number(name)}"
            time.sleep(0.02)
        return time.monotonic() - begun


def start(folder: Path) -> Server:
    command = (sys.executable, str(SCRIPT), str(folder))
    process = ServerProcess(command, os.environ, folder / "server.log")
    try:
        return Server(process.wait_until_ready(), process, folder)
    except BaseException:
        process.stop()
        raise
