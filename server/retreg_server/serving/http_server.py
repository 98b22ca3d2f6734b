"""uvicorn, which tells the application as soon as it is asked to stop, and not when it is late."""

from __future__ import annotations

import logging
import socket
import threading
from typing import Any

import uvicorn

from retreg_server.serving.service import Service
from retreg_server.serving.settings import Settings

LAST_ANSWERS_S = 0.1  # after the grace, for those whose registration has just been interrupted


class HttpServer(uvicorn.Server):
    """Serves one application. The grace begins once, for connections and registrations alike.

    asked_to_stop: set when a signal came before those are uvicorn's.
    """

    def __init__(
        self, app: Any, settings: Settings, asked_to_stop: threading.Event | None = None
    ) -> None:
        # uvicorn's annotation asks for whole seconds, its code does not
        grace_s: Any = settings.stop_grace_s + LAST_ANSWERS_S
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                log_level=logging.WARNING,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ssl_certfile=settings.tls_cert,
                ssl_keyfile=settings.tls_key,
                timeout_graceful_shutdown=grace_s,
            )
        )
        self._service: Service = app.state.service
        self._asked_to_stop = asked_to_stop

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; whether to stop."""
        asked = self._asked_to_stop is not None and self._asked_to_stop.is_set()
        return await super().on_tick(counter) or asked

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, end the event streams, and give what runs the time to finish."""
        self._service.begin_stop()
        await super().shutdown(sockets)
