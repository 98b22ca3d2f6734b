"""PUT, HEAD and DELETE of images by the SHA-256 of their header and body."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request
from starlette.responses import Response

from retreg import wire
from retreg.errors import InputError
from retreg_server.serving.access.caller import caller
from retreg_server.serving.errors import ApiError, json_response
from retreg_server.serving.http.forms import read_form
from retreg_server.serving.routes.answers import Kept
from retreg_server.serving.routes.register_files import (
    LIMITS,
    form_schema,
    uploaded_images,
    while_client_waits,
)
from retreg_server.serving.routes.responses import ADDRESS_PATTERN, TheService
from retreg_server.serving.workers.messages import BufferWriter, SharedBuffer, SharedImage

router = APIRouter(prefix="/v1/images", tags=["images"])

Address = Annotated[str, Path(pattern=ADDRESS_PATTERN, description="of header, line feed and body")]
ImageHeader = Annotated[
    str, Header(alias=wire.IMAGE_HEADER, max_length=4096, description="geometry as JSON")
]


@router.head("/{sha256}", response_class=Response)
async def has_image(sha256: Address, service: TheService) -> Response:
    """200 when the server has the image, 404 when it must be sent."""
    service.image(sha256, "This")
    return json_response({})


@router.put("/{sha256}", status_code=201, response_model=Kept)
async def put_image(
    sha256: Address, request: Request, header: ImageHeader, service: TheService
) -> Response:
    """Keep an image for later registrations."""
    caller().require("register")
    declared = wire.decode_header(header, service.settings.image_limit)
    largest = declared.nbytes + declared.nbytes // 1000 + 1024  # deflating noise makes it grow
    writer = BufferWriter(service.account.claim())
    async for chunk in request.stream():
        writer.write(chunk)
        if len(writer) > largest:
            raise ApiError(
                413,
                "too-large",
                f"The image body is larger than the {declared.nbytes} bytes that its header "
                "declares.",
            )
    async with service.unpacking:
        body = writer.finished()
        inflated = 0 if declared.encoding == "identity" else declared.nbytes
        claim = service.account.claim(inflated)
        image = await asyncio.to_thread(_verified_image, sha256, header, declared, body)
        if inflated:
            image.voxels.claim = claim
    service.keep(image)
    return json_response({"sha256": sha256}, 201)


@router.post(
    "/files", status_code=201, response_model=Kept, openapi_extra=form_schema("image")
)
async def put_file(request: Request, service: TheService) -> Response:
    """Keep the image in a file, in the files of a DICOM series, or in a zip of them."""
    caller().require("register")
    form = await read_form(request, LIMITS, service.account)
    (image,) = await while_client_waits(request, uploaded_images(service, form, ["image"]))
    service.keep(image)
    return json_response({"sha256": image.address}, 201)


@router.delete("/{sha256}", status_code=204)
async def delete_image(sha256: Address, service: TheService) -> Response:
    """Forget an image; others who have sent it too still have it."""
    service.drop(sha256)
    return Response(status_code=204)


def _verified_image(
    sha256: str, header: str, declared: wire.ImageHeader, body: SharedBuffer
) -> SharedImage:
    if wire.image_address(header, body.view) != sha256:
        raise InputError(
            "The image does not have the SHA-256 under which it was sent; it was damaged on the "
            "way or the sum was not taken over header, line feed and body."
        )
    return SharedImage.sent(declared, body, sha256)
