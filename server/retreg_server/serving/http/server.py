"""uvicorn: with bounded connections, on a loop that is watched, and told at once when to stop."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from functools import partial
from typing import Any

import uvicorn

from retreg_server.serving.http.connections import GuardedProtocol, Patience, WaitingRoom
from retreg_server.serving.http.event_loop import MonitoredLoop
from retreg_server.serving.service import Service
from retreg_server.serving.settings import Settings

LAST_ANSWERS_S = 0.1  # after the grace, for those whose registration has just been interrupted


def config_of(app: Any, settings: Settings) -> uvicorn.Config:
    """How an application is served."""
    patience = Patience(
        WaitingRoom(settings.max_waiting_connections, settings.head_deadline_s),
        WaitingRoom(settings.max_waiting_connections, settings.reader_idle_s),
    )
    # uvicorn's annotation asks for whole seconds, its code does not
    grace_s: Any = settings.stop_grace_s + LAST_ANSWERS_S
    return uvicorn.Config(
        app,
        http=partial(GuardedProtocol, patience),  # type: ignore[arg-type]
        loop="asyncio" if sys.platform == "win32" else MonitoredLoop,  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        timeout_graceful_shutdown=grace_s,
    )


class HttpServer(uvicorn.Server):
    """Serves one application. The grace begins once, for connections and registrations alike.

    asked_to_stop: set when a signal came before those are uvicorn's.
    """

    def __init__(
        self, app: Any, settings: Settings, asked_to_stop: threading.Event | None = None
    ) -> None:
        super().__init__(config_of(app, settings))
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
