"""The page for folders of results: a small application that serves nothing else."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from threading import Lock

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from retreg import wire
from retreg.addresses import is_loopback
from retreg.hand_edit import edited
from retreg.image import Image
from retreg_server.reporting.look import edit_of, page_message, shown_image
from retreg_server.reporting.result_folder import check_writable, write_outputs
from retreg_server.reporting.result_reader import StoredResult
from retreg_server.serving.edited_objects import write_edited_objects
from retreg_server.serving.errors import ApiError, LastResort, add_error_handlers, json_response
from retreg_server.serving.routes import look_page
from retreg_server.serving.routes.look import EditedKeypoints, Role
from retreg_server.serving.routes.responses import BINARY

EDITED = "edited-{}"  # the folder of what was stored on the page


class ResultShelf:
    """The results that are shown, by id; what people store goes to a folder within theirs."""

    def __init__(self, results: Sequence[StoredResult]) -> None:
        self._results = {secrets.token_hex(16): result for result in results}
        self._lock = Lock()

    @property
    def ids(self) -> Mapping[str, StoredResult]:
        """All of them."""
        return self._results

    def get(self, job_id: str) -> StoredResult:
        """The result of that id. Raises ApiError 404."""
        if job_id not in self._results:
            raise ApiError(404, "unknown-registration", "There is no such result in the folder.")
        return self._results[job_id]

    def refit(self, job_id: str, edit: EditedKeypoints) -> tuple[str, StoredResult, str]:
        """Write the result of edited keypoints into a new folder; returns its id, and a note.

        Of DICOM images there are DICOM objects, too; the note says why there are none. Raises
        InputError when the keypoints lead nowhere, FileError when it cannot be written.
        """
        old = self.get(job_id)
        grids, origin = (old.fixed.grid, old.moving.grid), f"the result {old.folder.name}"
        after = edited(old.result, edit_of(wire.loads(edit.text())), *grids, origin)
        with self._lock:
            folder = _next_folder(old.folder)
            check_writable(folder)
        write_outputs(folder, old.fixed, old.moving, after, sources=old.sources)
        new, fresh = replace(old, folder=folder, result=after), secrets.token_hex(16)
        note = write_edited_objects(new, old)
        self._results[fresh] = new
        return fresh, new, note


def create_folder_app(shelf: ResultShelf, token: str) -> FastAPI:
    """The ASGI application; every request but those for the page needs the token."""
    app = FastAPI(title="RetReg", version=version("retreg"), docs_url=None, redoc_url=None)
    app.include_router(look_page.router)
    add_error_handlers(app)
    app.add_middleware(LastResort)

    def check(request: Request) -> None:
        given = request.headers.get("authorization", "").encode("latin-1")
        host = request.url.hostname or ""
        if not is_loopback(host) or not hmac.compare_digest(given, f"Bearer {token}".encode()):
            raise ApiError(401, "unauthorised", "Open the address that `retreg look` has printed.")

    allowed = [Depends(check)]
    path = "/v1/registrations/{job_id}"

    @app.get(path + "/look", dependencies=allowed)
    def told(job_id: str) -> Response:
        stored = shelf.get(job_id)
        return json_response(page_message(stored.result, stored.fixed.grid))

    @app.get(path + "/look/{role}", dependencies=allowed)
    def image(job_id: str, role: Role) -> Response:
        stored = shelf.get(job_id)
        return _shown(stored.moving if role == "moving" else stored.fixed)

    @app.post(path + "/refit", dependencies=allowed)
    def refit(job_id: str, edit: EditedKeypoints) -> Response:
        fresh, stored, note = shelf.refit(job_id, edit)
        quality = stored.result.quality
        answer = {"id": fresh, "verdict": quality.verdict, "reason": quality.reason}
        return json_response({**answer, "folder": stored.folder.name, "note": note}, 201)

    return app


def _shown(image: Image) -> Response:
    header, body = wire.encode_image(shown_image(image))
    headers = {wire.IMAGE_HEADER: header, "Cache-Control": "no-store"}
    return Response(body, headers=headers, media_type=BINARY)


def _next_folder(folder: Path) -> Path:
    """The first free one."""
    number = 1
    while (folder / EDITED.format(number)).exists():
        number += 1
    return folder / EDITED.format(number)
