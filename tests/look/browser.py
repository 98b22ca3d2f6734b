"""A real Chromium, driven through its own protocol over a pipe, without any other package."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run",
    "--disable-background-networking", "--hide-scrollbars", "--enable-unsafe-swiftshader",
)  # fmt: skip

# The browser reads commands from descriptor 3 and answers on 4.
LAUNCH = (
    "import fcntl, os, sys; "
    "a, b = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]); "
    "os.dup2(a, 3); os.dup2(b, 4); os.execv(sys.argv[3], sys.argv[3:])"
)


def chromium() -> str | None:
    """The browser of this machine, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One page of the browser. errors: what its console complained about."""

    def __init__(self, reads: Any, writes: Any) -> None:
        self._reads, self._writes, self._numbers = reads, writes, count(1)
        self._session: str | None = None
        self._loads = 0
        self.errors: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._writes.write(json.dumps(message).encode() + b"\0")
        self._writes.flush()
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        message = bytearray()
        while (byte := self._reads.read(1)) != b"\0":
            assert byte, "the browser has gone"
            message += byte
        answer = json.loads(message)
        method, told = answer.get("method"), answer.get("params", {})
        if method == "Page.loadEventFired":
            self._loads += 1
        elif method == "Runtime.exceptionThrown":
            self.errors.append(told["exceptionDetails"].get("exception", {}).get("description", ""))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(told["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and told["type"] == "error":
            said = (part.get("value", part.get("description")) for part in told["args"])
            self.errors.append(" ".join(map(str, said)))
        return answer

    def open(self, url: str) -> None:
        """Go to an address and wait until it has loaded."""
        before = self._loads
        self.send("Page.navigate", url=url)
        while self._loads == before:
            self._next()

    def run(self, script: str) -> Any:
        """The value of an expression on the page; promises are waited for."""
        found = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, condition: str, seconds: int = 30) -> None:
        """Wait until an expression is true."""
        self.run(
            f"new Promise((done, fail) => {{ const end = Date.now() + {1000 * seconds};"
            "(function look() {"
            f"if ({condition}) done(true); else if (Date.now() > end) fail('waited in vain');"
            "else setTimeout(look, 30); })(); })"
        )

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the left button at start, move to end in steps, let it go."""
        def mouse(kind: str, x: float, y: float, button: str = "left") -> None:
            self.send(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1,
                buttons=int(kind != "mouseReleased"),
            )  # fmt: skip

        mouse("mousePressed", *start)
        for part in (0.4, 0.8, 1.0):
            x, y = (a + part * (b - a) for a, b in zip(start, end, strict=True))
            mouse("mouseMoved", x, y)
        mouse("mouseReleased", *end)

    def press(self, key: str) -> None:
        """Press and let go a key that has a name."""
        codes = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        for kind in ("keyDown", "keyUp"):
            code = codes.get(key, 0)
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def appear(self, width: int, height: int, scheme: str = "light") -> None:
        """The size of the page in pixels, and whether the system is light or dark."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def photograph(self, path: Path) -> None:
        """Write what is seen as a PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))


@contextmanager
def running_browser(folder: Path) -> Iterator[Page]:
    """Start the browser with a profile in folder, and end it afterwards."""
    path = chromium()
    assert path is not None
    to_read, from_us = os.pipe()
    from_it, to_write = os.pipe()
    command = [sys.executable, "-c", LAUNCH, str(to_read), str(to_write), path, *FLAGS]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={folder}"], pass_fds=(to_read, to_write),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_read)
    os.close(to_write)
    with os.fdopen(from_it, "rb") as reads, os.fdopen(from_us, "wb") as writes:
        try:
            yield Page(reads, writes)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


@contextmanager
def shown_browser(folder: Path, width: int, height: int) -> Iterator[Page]:
    """A browser of so many pixels; skips the test where Chromium is not installed."""
    if chromium() is None:
        pytest.skip("Chromium is not installed")
    with running_browser(folder) as opened:
        opened.appear(width, height)
        yield opened
