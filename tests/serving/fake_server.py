"""`retreg serve` with the stand-in model: fake_server.py MODEL_DIR [FLAG ...]"""

from __future__ import annotations

import sys
from functools import partial

from retreg_server import cli
from retreg_server.serving import app
from retreg_server.serving.metrics import Metrics
from retreg_server.serving.settings import Settings
from retreg_server.serving.workers.executor import LocalExecutor


def main() -> int:
    """Serve until stopped, on a free port; prints the line of `retreg serve` when ready."""
    model_dir, *flags = sys.argv[1:]

    def executor(settings: Settings, metrics: Metrics) -> LocalExecutor:
        arguments = {"folder": model_dir}
        worker = "fake_engine:fake_worker"
        return LocalExecutor(settings.devices, metrics.restarts.inc, worker, arguments)

    app.create_app = partial(app.create_app, make_executor=executor)
    return cli.main(["serve", "--port", "0", *flags])


if __name__ == "__main__":
    sys.exit(main())
