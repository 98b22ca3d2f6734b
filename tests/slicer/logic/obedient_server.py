"""A real server in a process of its own whose model does what the options say.

    python tests/slicer/logic/obedient_server.py FOLDER

The model is the stand-in of the server's tests; FOLDER keeps what reached it. Prints the same line
as `retreg serve` when it is ready, and ends with its standard input.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import uvicorn

from retreg.server_process import READY
from retreg_server.commands.serve import listening_socket
from retreg_server.serving.app import create_app
from retreg_server.serving.metrics import Metrics
from retreg_server.serving.settings import Settings
from retreg_server.serving.workers.executor import LocalExecutor

STAND_IN = Path(__file__).parents[2] / "serving"
TOKEN = "a-token-of-the-tests"
SETTINGS = Settings(reuse_results=False, token=TOKEN, stop_grace_s=0.2)


def main(folder: str) -> None:
    """Serve until standard input ends."""
    sys.path.insert(0, str(STAND_IN))  # the worker process inherits it

    def executor(settings: Settings, metrics: Metrics) -> LocalExecutor:
        worker = "fake_engine:fake_worker"
        return LocalExecutor(settings.devices, metrics.restarts.inc, worker, {"folder": folder})

    listener = listening_socket("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def announce() -> None:
        sys.stdout.write(f"{READY}{address}\n")
        sys.stdout.flush()

    app = create_app(SETTINGS, executor, announce)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    )

    def end_with_input() -> None:
        while os.read(0, 4096):
            pass
        server.should_exit = True

    threading.Thread(target=end_with_input, daemon=True).start()
    server.run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1])
