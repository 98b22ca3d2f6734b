"""The application: routes, middleware and the life of a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI
from starlette.responses import Response

from retreg import wire
from retreg_server.registration import engine
from retreg_server.serving import images, registrations, uploads
from retreg_server.serving.auth import Doorkeeper
from retreg_server.serving.catalogue import usable_models
from retreg_server.serving.errors import (
    ApiError,
    LastResort,
    add_error_handlers,
    json_response,
)
from retreg_server.serving.jobs import Run
from retreg_server.serving.limits import BodyLimit
from retreg_server.serving.service import LoadModels, Service, service_of
from retreg_server.serving.settings import Settings

router = APIRouter(tags=["server"])

EXPIRE_EVERY_S = 60.0
TheService = Annotated[Service, Depends(service_of)]


def _nothing() -> None:
    """Nobody waits for the server to be ready."""


def create_app(
    settings: Settings,
    run: Run = engine.register,
    load_models: LoadModels = usable_models,
    on_ready: Callable[[], None] = _nothing,
) -> FastAPI:
    """The ASGI application of one server.

    run: answers a registration request on the worker thread. load_models: called there at start.
    on_ready: called on the event loop when the models are loaded.
    """
    service = Service(settings, run, load_models)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        living = asyncio.create_task(_live(service, on_ready))
        yield
        living.cancel()
        service.close()

    # The pages of FastAPI for its documentation load scripts from the internet; they stay off.
    app = FastAPI(
        title="RetReg", version=version("retreg"), lifespan=life, docs_url=None, redoc_url=None
    )
    app.state.service = service
    for routes in (router, images.router, registrations.router, uploads.router):
        app.include_router(routes)
    add_error_handlers(app)
    # The one added last is the outermost.
    app.add_middleware(BodyLimit, max_image_bytes=settings.max_image_bytes)
    app.add_middleware(Doorkeeper, token=settings.token)
    app.add_middleware(LastResort)
    return app


async def _live(service: Service, on_ready: Callable[[], None]) -> None:
    await service.warm_up()
    if service.is_ready:
        on_ready()
    while True:
        await asyncio.sleep(EXPIRE_EVERY_S)
        service.expire()


@router.get("/healthz")
async def health() -> Response:
    """Alive; needs no token."""
    return json_response({"status": "ok"})


@router.get("/readyz")
async def readiness(service: TheService) -> Response:
    """200 when the models are loaded, 503 before."""
    if not service.is_ready:
        raise ApiError(503, "not-ready", "The server is loading its models; try again later.")
    return json_response({"status": "ready"})


@router.get("/v1/info")
async def info(service: TheService) -> Response:
    """Version, encodings and limits."""
    return json_response(
        {
            "name": "RetReg",
            "version": version("retreg"),
            "encodings": list(wire.ENCODINGS),
            "dtypes": list(wire.DTYPES),
            "max_image_bytes": service.settings.max_image_bytes,
            "queue_size": service.settings.queue_size,
        }
    )


@router.get("/v1/models")
async def models(service: TheService) -> Response:
    """The models on offer, with what they take and their options."""
    return json_response(wire.encode_models(await service.models()))
