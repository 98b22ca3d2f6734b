"""The files of the page that shows a result in a browser: the same for every result."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import RedirectResponse, Response

from retreg_server.serving.errors import ApiError
from retreg_server.serving.routes.responses import content
from retreg_server.serving.routes.series_link import refuse_unusable_link

router = APIRouter(prefix="/look", tags=["look"])

WEB = FilePath(__file__).parent.parent / "web"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@router.get("", status_code=307, response_class=RedirectResponse)
async def look_at_series_of_archive(request: Request) -> Response:
    """To the page for two series of an archive, by the parameters study, fixed and moving."""
    refuse_unusable_link(request.query_params.multi_items())
    return RedirectResponse(f"look/?{request.url.query}", headers=HEADERS)


@router.get("/", responses=content("text/html"), response_class=Response)
async def look_at_series(request: Request) -> Response:
    """The page; it orders the registration itself, and asks for the token."""
    refuse_unusable_link(request.query_params.multi_items())
    return _file("look.html")


@router.get("/{job_id}", responses=content("text/html"), response_class=Response)
async def look_at_result(
    job_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")],  # noqa: ARG001 - for the page
    request: Request,
) -> Response:
    """The page; it asks for the token itself. A link may name the series that were registered."""
    if request.query_params:
        refuse_unusable_link(request.query_params.multi_items())
    return _file("look.html")


@router.get(
    "/page/{name}", responses=content("text/javascript"), response_class=Response
)
async def look_page_file(name: Annotated[str, Path(pattern=r"^[a-z_]+\.(css|js)$")]) -> Response:
    """A file of the page."""
    return _file(name)


def _file(name: str) -> Response:
    path = WEB / name
    if not path.is_file():
        raise ApiError(404, "not-found", "The page has no such file.")
    return Response(path.read_bytes(), headers=HEADERS, media_type=TYPES[path.suffix])
