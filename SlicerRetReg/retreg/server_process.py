"""A RetReg server as a child process of this one, on a free port of this machine."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from retreg.errors import ServerError

READY = "RetReg server ready at "
SERVE = ("serve", "--host", "127.0.0.1", "--port", "0", "--stop-with-parent")
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 15.0
LONGEST_WORDS = 300


class ServerProcess:
    """Starts a command such as (python, "-m", "retreg.cli", *SERVE).

    log: file for what the server complains of; it is overwritten. Raises ServerError when there
    is no such program.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        try:
            with log.open("wb") as complaints:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,  # its end tells the server that we are gone
                    stdout=subprocess.PIPE,
                    stderr=complaints,
                    cwd=log.parent,
                    env=dict(environment),
                    text=True,
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
        except OSError as error:
            raise ServerError(
                f"The server could not be started ({error.strerror}); install it again."
            ) from error

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def wait_until_ready(
        self,
        timeout_s: float = START_TIMEOUT_S,
        tell: Callable[[str, float], None] | None = None,
    ) -> str:
        """The address, as soon as the models are loaded; called once.

        tell(stage, fraction): called often; what it raises ends the waiting. Raises ServerError,
        whose message ends with the last words of the server, when it ends or takes too long.
        """
        assert self._process.stdout is not None
        lines: queue.Queue[str] = queue.Queue()
        copying = (self._process.stdout, lines)
        threading.Thread(target=_copy_lines, args=copying, daemon=True).start()
        begun = time.monotonic()
        while (passed := time.monotonic() - begun) < timeout_s:
            if tell is not None:
                tell("starting the server", passed / timeout_s)
            try:
                line = lines.get(timeout=0.1)
            except queue.Empty:
                if not self.is_alive and lines.empty():
                    raise ServerError(
                        "The server ended before it was ready; run `retreg doctor` to find out "
                        f"why. It said: {self.last_words()}"
                    ) from None
                continue
            if line.startswith(READY):
                return line.removeprefix(READY).strip()
        raise ServerError(
            f"The server was not ready after {timeout_s:g} s; close other programs and try again. "
            f"It said: {self.last_words()}"
        )

    def last_words(self) -> str:
        """The last line of its log, which never holds data of a patient."""
        words = self._log.read_text("utf-8", "replace").split("\n")
        said = [line.strip() for line in words if line.strip()]
        return said[-1][:LONGEST_WORDS] if said else "nothing."

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop it in order, and by force when that takes longer than timeout_s."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        if os.name != "nt":  # where terminating means killing, the end of the input must do
            self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _copy_lines(stream: IO[str], lines: queue.Queue[str]) -> None:
    """Keeps reading after the first line too, so that the server never waits for a reader."""
    with suppress(ValueError):  # closed while the process was stopped
        for line in stream:
            lines.put(line)
