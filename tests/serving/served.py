"""A real server on a free port of this machine, in a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from retreg_server.commands.serve import listening_socket
from retreg_server.serving.app import create_app
from retreg_server.serving.http.server import HttpServer
from retreg_server.serving.service import MakeExecutor, executor_of
from retreg_server.serving.settings import Settings


@contextmanager
def served(settings: Settings, make_executor: MakeExecutor = executor_of) -> Iterator[str]:
    """Start a server, wait until it is ready, and stop it afterwards; gives its address."""
    ready = threading.Event()
    listener = listening_socket("127.0.0.1", 0)
    app = create_app(settings, make_executor, on_ready=ready.set)
    server = HttpServer(app, settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert ready.wait(60)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
