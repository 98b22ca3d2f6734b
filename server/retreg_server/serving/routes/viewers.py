"""Modules that other viewers load into themselves: the same for everybody, and without results."""

from __future__ import annotations

from pathlib import Path as FilePath

from fastapi import APIRouter
from starlette.responses import Response

from retreg_server.serving.routes.responses import content

router = APIRouter(prefix="/viewers", tags=["viewers"])

OHIF = FilePath(__file__).parent.parent / "viewers" / "ohif.js"
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}


@router.get("/ohif.js", responses=content("text/javascript"), response_class=Response)
async def ohif_extension() -> Response:
    """An extension of OHIF: a panel that registers two series of the study that is open."""
    return Response(OHIF.read_bytes(), headers=HEADERS, media_type="text/javascript")
