"""The application: routes, middleware and the life of a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from retreg_server.serving.archive_orders import ArchiveOrders
from retreg_server.serving.errors import DOCUMENTED, LastResort, add_error_handlers
from retreg_server.serving.http.event_loop import MonitoredLoop
from retreg_server.serving.intake import receiving
from retreg_server.serving.metrics import METHODS
from retreg_server.serving.middleware.auth import AccessControl
from retreg_server.serving.middleware.body_limits import BodyLimit
from retreg_server.serving.middleware.request_log import HEADER, Tracing
from retreg_server.serving.routes import (
    dicomweb,
    images,
    look,
    look_page,
    monailabel,
    register_files,
    registrations,
    server_info,
    viewers,
)
from retreg_server.serving.service import MakeExecutor, Service, executor_of
from retreg_server.serving.settings import Settings

EXPIRE_EVERY_S = 60.0
PARTS = (
    server_info, images, registrations, register_files, monailabel, look, look_page, viewers,
)  # fmt: skip


def _nothing() -> None:
    """Nobody waits for the server to be ready."""


def create_app(
    settings: Settings,
    make_executor: MakeExecutor = executor_of,
    on_ready: Callable[[], None] = _nothing,
) -> FastAPI:
    """The ASGI application of one server.

    make_executor: makes what runs the registrations. on_ready: called on the event loop when the
    models are loaded. Raises InputError when the folder for results cannot be used.
    """
    service = Service(settings, make_executor)
    archive_orders = ArchiveOrders(service)
    intake = receiving(service, archive_orders)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        living = asyncio.create_task(_live(app, service, on_ready))
        async with intake:
            yield
        living.cancel()
        await archive_orders.close()
        await service.close()

    # The pages of FastAPI for its documentation load scripts from the internet; they stay off.
    app = FastAPI(
        title="RetReg",
        version=version("retreg"),
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        responses=DOCUMENTED,
    )
    app.state.service, app.state.archive_orders = service, archive_orders
    for part in PARTS:
        app.include_router(part.router)
    for prefix in dicomweb.PREFIXES:
        app.include_router(dicomweb.router, prefix=prefix)
    add_error_handlers(app)
    _add_middleware(app, service)
    return app


def _add_middleware(app: FastAPI, service: Service) -> None:
    """What every request passes; the one added last is the outermost."""
    settings = service.settings
    app.add_middleware(
        AccessControl, settings=settings, tokens=service.tokens, failures=service.failures
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=METHODS,
            allow_headers=["*"],
            expose_headers=[HEADER],
        )
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(LastResort)
    app.add_middleware(Tracing, metrics=service.metrics)


async def _live(app: FastAPI, service: Service, on_ready: Callable[[], None]) -> None:
    await asyncio.to_thread(app.openapi)  # made once, which takes longer than anybody should wait
    loop = asyncio.get_running_loop()
    if isinstance(loop, MonitoredLoop):
        service.metrics.follow_loop(loop.monitor.taken_longest_s)
    await service.warm_up()
    if service.is_ready:
        on_ready()
    while True:
        await asyncio.sleep(EXPIRE_EVERY_S)
        await service.expire()
