"""A RetReg server of one's own, in a process of its own."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from retreg.errors import ServerError

READY = "RetReg server ready at "
SERVE = (sys.executable, "-m", "retreg.cli", "serve", "--port", "0")
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 15.0


@contextmanager
def own_server(
    command: Sequence[str] | None = None, start_timeout_s: float = START_TIMEOUT_S
) -> Iterator[str]:
    """Start a server on a free loopback port, give its address, and stop it whatever happens.

    Raises ServerError when it does not become ready; the message ends with its last words.
    """
    environment = {name: value for name, value in os.environ.items() if name != "RETREG_TOKEN"}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        try:
            process = subprocess.Popen(
                command or SERVE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                env=environment,
            )
        except OSError as error:
            raise ServerError(
                f"The server could not be started ({error.strerror}); reinstall the project."
            ) from error
        try:
            yield _address(process, complaints, start_timeout_s)
        finally:
            _stop(process)


def _address(process: subprocess.Popen[str], complaints: IO[str], timeout_s: float) -> str:
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_copy_lines, args=(process.stdout, lines), daemon=True).start()
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            line = lines.get(timeout=0.1)
        except queue.Empty:
            if process.poll() is not None and lines.empty():
                raise ServerError(
                    "The server ended before it was ready; run `retreg doctor` to find out why. "
                    f"It said: {_last_words(complaints)}"
                ) from None
            continue
        if line.startswith(READY):
            return line.removeprefix(READY).strip()
    raise ServerError(
        f"The server was not ready after {timeout_s:g} s; close other programs and try again. "
        f"It said: {_last_words(complaints)}"
    )


def _copy_lines(stream: IO[str], lines: queue.Queue[str]) -> None:
    """Keeps reading after the first line too, so that the server never waits for a reader."""
    for line in stream:
        lines.put(line)


def _last_words(complaints: IO[str]) -> str:
    complaints.seek(0)
    words = [line.strip() for line in complaints if line.strip()]
    return words[-1] if words else "nothing."


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
