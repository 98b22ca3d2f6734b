"""How the server is, what it can do, and its numbers."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from retreg import wire
from retreg_server.serving.errors import ApiError, json_response
from retreg_server.serving.routes.answers import Health, Info, Models
from retreg_server.serving.routes.responses import TheService

router = APIRouter(tags=["server"])

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/healthz", response_model=Health)
async def health() -> Response:
    """Alive; needs no token."""
    return json_response({"status": "ok"})


@router.get("/readyz", response_model=Health)
async def readiness(service: TheService) -> Response:
    """200 when the models are loaded and results can be stored, else 503 with the reason."""
    if not service.is_ready:
        raise ApiError(503, "not-ready", "The server is loading its models; try again later.")
    if trouble := await service.store.trouble():
        raise ApiError(503, "no-storage", trouble)
    return json_response({"status": "ready"})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(service: TheService) -> Response:
    """The numbers of the server for Prometheus."""
    return Response(service.metrics.text(), media_type=PROMETHEUS)


@router.get("/v1/info", response_model=Info)
async def info(service: TheService) -> Response:
    """Version, encodings and limits."""
    return json_response(
        {
            "name": "RetReg",
            "version": service.version,
            "encodings": list(wire.ENCODINGS),
            "dtypes": list(wire.DTYPES),
            "max_image_bytes": service.settings.image_limit,
            "queue_size": service.settings.queue_size,
        }
    )


@router.get("/v1/models", response_model=Models)
async def models(service: TheService) -> Response:
    """The models on offer, with what they take and their options."""
    return json_response(wire.encode_models(await service.models()))
