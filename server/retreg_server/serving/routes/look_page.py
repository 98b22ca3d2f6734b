"""The files of the page that shows a result in a browser: the same for every result."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import RedirectResponse, Response

from retreg.errors import InputError
from retreg_server.serving.errors import ApiError
from retreg_server.serving.routes.responses import content
from retreg_server.serving.routes.series_link import refuse_unusable_link

router = APIRouter(prefix="/look", tags=["look"])

WEB = FilePath(__file__).parent.parent / "web"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_SCRIPT = re.compile("<script[^>]*></script>")
_REASON = '<span id="reason">'
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
    return _refusal(request) or RedirectResponse(f"look/?{request.url.query}", headers=HEADERS)


@router.get("/", responses=content("text/html"), response_class=Response)
async def look_at_series(request: Request) -> Response:
    """The page; it orders the registration itself, and asks for the token."""
    return _refusal(request) or _file("look.html")


@router.get("/{job_id}", responses=content("text/html"), response_class=Response)
async def look_at_result(
    job_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")],  # noqa: ARG001 - for the page
    request: Request,
) -> Response:
    """The page; it asks for the token itself. A link may name the series that were registered."""
    return (_refusal(request) if request.query_params else None) or _file("look.html")


@router.get(
    "/page/{name}", responses=content("text/javascript"), response_class=Response
)
async def look_page_file(name: Annotated[str, Path(pattern=r"^[a-z_]+\.(css|js)$")]) -> Response:
    """A file of the page."""
    return _file(name)


def _refusal(request: Request) -> Response | None:
    """What is wrong with a link, on the page without its scripts where a browser asks."""
    try:
        refuse_unusable_link(request.query_params.multi_items())
    except InputError as error:
        if "text/html" not in request.headers.get("accept", ""):
            raise
        text = _SCRIPT.sub("", (WEB / "look.html").read_text("utf-8"))
        text = text.replace(_REASON, _REASON + escape(str(error), quote=False))
        return Response(text, 422, HEADERS, TYPES[".html"])
    return None


def _file(name: str) -> Response:
    path = WEB / name
    if not path.is_file():
        raise ApiError(404, "not-found", "The page has no such file.")
    return Response(path.read_bytes(), headers=HEADERS, media_type=TYPES[path.suffix])
