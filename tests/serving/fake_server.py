"""A server with the stand-in model in a process of its own: fake_server.py STATE_DIR MODEL_DIR"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import uvicorn

from retreg_server.commands.serve import listening_socket
from retreg_server.serving.app import create_app
from retreg_server.serving.http.server import config_of
from retreg_server.serving.metrics import Metrics
from retreg_server.serving.settings import Settings
from retreg_server.serving.workers.executor import LocalExecutor


def main() -> None:
    """Serve until killed; prints the address when ready."""
    state_dir, model_dir = sys.argv[1:]
    listener = listening_socket("127.0.0.1", 0)

    def executor(settings: Settings, metrics: Metrics) -> LocalExecutor:
        arguments = {"folder": model_dir}
        worker = "fake_engine:fake_worker"
        return LocalExecutor(settings.devices, metrics.restarts.inc, worker, arguments)

    def announce() -> None:
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()

    settings = Settings(state_dir=Path(state_dir))
    app = create_app(settings, executor, on_ready=announce)
    gc.freeze()
    uvicorn.Server(config_of(app, settings)).run(sockets=[listener])


if __name__ == "__main__":
    main()
