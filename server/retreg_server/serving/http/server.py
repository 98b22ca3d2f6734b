"""The settings of uvicorn that every server of this project has."""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import Any

import uvicorn

from retreg_server.serving.http.connections import GuardedProtocol, Patience, WaitingRoom
from retreg_server.serving.http.event_loop import MonitoredLoop
from retreg_server.serving.settings import Settings


def config_of(app: Any, settings: Settings) -> uvicorn.Config:
    """How an application is served: with bounded connections, on a loop that is watched."""
    patience = Patience(
        WaitingRoom(settings.max_waiting_connections, settings.head_deadline_s),
        WaitingRoom(settings.max_waiting_connections, settings.reader_idle_s),
    )
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
        timeout_graceful_shutdown=round(settings.stop_grace_s),
    )
