"""MONAI Label's protocol, so that its unmodified client can list models and register images.

A registration needs two images: the file is the fixed and the label the moving one, or the
session is the fixed one and params names the session of the moving one as "moving_session".
Parameters that are no words of the protocol are options of the model. The answer holds the
transform as an ITK file, and as parameters what /v1/registrations/{id}/result answers.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from retreg import wire
from retreg.errors import InputError, OptionError
from retreg.messages import ModelInfo
from retreg_server.serving.access.caller import caller
from retreg_server.serving.errors import ApiError, json_response
from retreg_server.serving.http.forms import Form, FormLimits, read_form
from retreg_server.serving.jobs import Job
from retreg_server.serving.middleware.auth import refusal
from retreg_server.serving.routes.answers import (
    LogIn,
    MonaiInfo,
    NewSession,
    Result,
    Session,
    Token,
    Valid,
)
from retreg_server.serving.routes.register_files import (
    form_schema,
    uploaded_images,
    wait_for_end,
    while_client_waits,
)
from retreg_server.serving.routes.responses import (
    BINARY,
    LargeResponse,
    TheService,
    TransformFormat,
    content,
    download,
    result_response,
)
from retreg_server.serving.service import Service
from retreg_server.serving.workers.messages import SharedBuffer, SharedImage

router = APIRouter(tags=["MONAI Label"])

LIMITS = FormLimits(fields=8, field_bytes=1 << 14)
WORDS = {"client_id", "model", "image", "session_id", "moving_session", "result_extension",
         "result_dtype", "result_compress", "result_write_to_file", "device"}  # fmt: skip
SessionId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
ModelName = Annotated[str, Path(pattern="^[a-z0-9][a-z0-9_-]{0,63}$")]
Output = Annotated[Literal["", "json", "image", "all"], Query()]


@router.get("/info/", response_model=MonaiInfo)
async def info(service: TheService) -> Response:
    """The models in the form that MONAI Label's clients expect."""
    models = {each.name: _model(each) for each in await service.models()}
    message = {"name": "RetReg", "description": "Image registration", "version": service.version}
    nothing = ("trainers", "strategies", "scoring", "train_stats", "datastore")
    absent: dict[str, Any] = {name: {} for name in nothing}
    return json_response({**message, **absent, "labels": [], "models": models})


@router.put("/session/", response_model=NewSession, openapi_extra=form_schema("files"))
async def create_session(request: Request, service: TheService) -> Response:
    """Keep one image for later; its session stands for it."""
    caller().require("register")
    form = await read_form(request, LIMITS, service.account)
    if [len(sent.sizes) for sent in form.files.values()] != [1] or "files" not in form.files:
        raise InputError("A session holds one image; send one file in the field files.")
    (image,) = await while_client_waits(request, uploaded_images(service, form, ["files"]))
    service.keep(image)
    session = secrets.token_hex(16)
    service.sessions.put(session, image.address, 1)
    return json_response({"session_id": session, "session_info": _session(service, session)})


@router.get("/session/{session}", response_model=Session)
async def get_session(session: SessionId, service: TheService) -> Response:
    """Whether the session still holds its image."""
    _session_image(service, session, "This")
    return json_response(_session(service, session))


@router.delete("/session/{session}", response_model=Session)
async def remove_session(session: SessionId, service: TheService) -> Response:
    """Forget a session."""
    _session_image(service, session, "This")
    service.sessions.pop(session)
    return json_response(_session(service, session))


@router.post(
    "/infer/{model}",
    openapi_extra=form_schema("file", "label", "params"),
    responses=content("multipart/form-data"),
    response_model=Result,
)
async def infer(
    model: ModelName,
    request: Request,
    service: TheService,
    session_id: Annotated[str, Query(max_length=64)] = "",
    output: Output = "",
) -> Response:
    """Register two images; cancelled when the client goes away."""
    caller().require("register")
    job, suffix = await _ordered(model, request, service, session_id)
    await wait_for_end(job, request, service)
    result = result_response(job)
    if output == "json":
        return result
    file = await service.transform_file(job, suffix)
    return _answer(result, file, job.file_name("transform", suffix), output)


@router.get("/auth/", response_model=LogIn)
async def auth_enabled(service: TheService) -> Response:
    """Whether a token is needed; answered without one, for clients ask this first."""
    return json_response({"enabled": service.tokens.are_needed})


@router.post("/auth/token", response_model=Token, openapi_extra=form_schema("username", "password"))
async def auth_token(request: Request, service: TheService) -> Response:
    """The log-in of MONAI Label's clients: any name, and the token as the password."""
    password = (await read_form(request, LIMITS, service.account)).fields.get("password", "")
    if service.tokens.owner_of(password.encode()) is None:
        raise refusal(service.failures, caller().address)
    return json_response({"access_token": password, "token_type": "bearer"})


@router.get("/auth/token/valid", response_model=Valid)
async def auth_token_valid() -> Response:
    """Only asked with the right token: without one, nothing gets here."""
    return json_response({"valid": True})


async def _ordered(
    model: str, request: Request, service: Service, session_id: str
) -> tuple[Job, str]:
    """A job for what a form asks for, and the ending of the file that is wanted of it."""
    service.jobs.check()  # before all of it is sent
    form = await read_form(request, LIMITS, service.account)
    params = _params(form)
    sessions = {"file": session_id, "label": str(params.get("moving_session", ""))}
    suffix = str(params.get("result_extension", ".h5")).removeprefix(".")
    if suffix not in get_args(TransformFormat):
        suffix = "h5"  # clients ask for .nrrd or .nii.gz, whatever the model
    with service.jobs.place() as place:
        fixed, moving = await while_client_waits(request, _images(service, sessions, form))
        try:
            chosen = await service.model(model, fixed, moving)
        except OptionError as error:
            raise ApiError(404, "unknown-model", str(error)) from None
        options = {name: value for name, value in params.items() if name not in WORDS}
        return await service.submit(fixed, moving, chosen, options, turn=place), suffix


def _model(info: ModelInfo) -> dict[str, Any]:
    return {
        "type": "registration",
        "labels": [],
        "dimension": 2 if info.kinds == ("picture",) else 3,
        "description": info.title,
        "config": {option.name: option.default for option in info.options},
    }


def _session(service: Service, session: str) -> dict[str, Any]:
    now = int(time.time())
    expiry = int(service.settings.keep_s)
    stamps = {"create_ts": now, "last_access_ts": now, "expiry": expiry}
    return {"name": session, "path": "", "image": session, "meta": {}, **stamps}


def _session_image(service: Service, session: str, which: str) -> SharedImage:
    address = service.sessions.get(session)
    if address is None:
        raise ApiError(404, "unknown-session", f"{which} session does not exist; it has expired.")
    return service.image(address, f"{which} session's")


def _params(form: Form) -> dict[str, Any]:
    params = wire.loads(form.fields.get("params") or "{}")
    if not isinstance(params, dict):
        raise InputError("The field params is not a JSON object, which was expected.")
    return params


async def _images(
    service: Service, sessions: Mapping[str, str], form: Form
) -> list[SharedImage]:
    """The fixed and the moving image: of a session where there is one, else of the form."""
    sent = [field for field, session in sessions.items() if not session]
    read = dict(zip(sent, await uploaded_images(service, form, sent), strict=True))
    which = {"file": "The fixed", "label": "The moving"}
    return [
        read[field] if field in read else _session_image(service, session, which[field])
        for field, session in sessions.items()
    ]


def _answer(result: LargeResponse, file: SharedBuffer, name: str, output: str) -> Response:
    if output == "image":
        return download(file, name)
    boundary = secrets.token_hex(16)
    lines = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="params"\r\n'
        "Content-Type: application/json\r\n\r\n",
        f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        f"Content-Type: {BINARY}\r\n\r\n",
        f"\r\n--{boundary}--\r\n",
    ]
    first, second, last = (SharedBuffer.of(line.encode("ascii")) for line in lines)
    media_type = f"multipart/form-data; boundary={boundary}"
    return LargeResponse([first, *result.parts, second, file, last], media_type)
