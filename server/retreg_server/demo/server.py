"""A RetReg server of one's own, in a process of its own."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from retreg.server_process import SERVE, START_TIMEOUT_S, ServerProcess


@contextmanager
def own_server(
    command: Sequence[str] | None = None, start_timeout_s: float = START_TIMEOUT_S
) -> Iterator[str]:
    """Start a server on a free loopback port, give its address, and stop it whatever happens.

    Raises ServerError when it does not become ready; the message ends with its last words.
    """
    environment = {name: value for name, value in os.environ.items() if name != "RETREG_TOKEN"}
    serve = command or (sys.executable, "-m", "retreg.cli", *SERVE)
    with tempfile.TemporaryDirectory() as folder:
        process = ServerProcess(serve, environment, Path(folder) / "server.log")
        try:
            yield process.wait_until_ready(start_timeout_s)
        finally:
            process.stop()
