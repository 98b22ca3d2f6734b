"""Registrations of two series in an archive that the settings name."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from retreg import wire
from retreg_server.dicom.archives import SeriesName, archive_named
from retreg_server.serving.access.caller import caller
from retreg_server.serving.archive_orders import ArchiveOrders, Order, Wanted, status_message
from retreg_server.serving.errors import json_response
from retreg_server.serving.http.bounded_json import BoundedRoute
from retreg_server.serving.routes.answers import ArchiveStatus
from retreg_server.serving.routes.registrations import Name, Value
from retreg_server.serving.routes.responses import TheService

PREFIXES = ("/v1/dicomweb/registrations", "/v1/dicom/registrations")
"""Two names of the same."""
router = APIRouter(route_class=BoundedRoute, tags=["archives"])

Uid = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64)]
JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
Kind = Literal["series", "registration", "fiducials", "report"]


class SeriesAddress(BaseModel):
    """A series by its UIDs."""

    model_config = ConfigDict(extra="forbid", strict=True)

    study: Uid
    series: Uid


class ArchiveOrder(BaseModel):
    """An archive by the name that the settings give it, two of its series, and what to store.

    archive: may be left out where the settings know only one. registration: the id of a result of
    these series, such as one that was edited, that is stored instead of a new one.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    archive: Name | None = None
    fixed: SeriesAddress
    moving: SeriesAddress
    model: Name | None = None
    options: Annotated[dict[Name, Value], Field(max_length=100)] = {}
    store: Annotated[list[Kind], Field(max_length=4)] = ["series", "registration"]
    registration: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None


async def orders_of(request: Request) -> ArchiveOrders:
    """The orders of the server behind a request."""
    orders = request.app.state.archive_orders
    assert isinstance(orders, ArchiveOrders)
    return orders


Orders = Annotated[ArchiveOrders, Depends(orders_of)]


@router.post("", status_code=202, response_model=ArchiveStatus)
async def order_registration(
    order: ArchiveOrder, orders: Orders, service: TheService
) -> Response:
    """Fetch both series, register them and store the result; the answer holds the id to ask by."""
    caller().require("register")
    archive = archive_named(service.settings.archives, order.archive)
    fixed, moving = (
        Wanted.archived(archive, SeriesName(each.study, each.series))
        for each in (order.fixed, order.moving)
    )
    options = wire.loads(wire.dumps(order.options))
    target = {"task": "store", "archive": archive.name}
    job = orders.begin(
        Order(fixed, moving, order.model, options, order.store, target, order.registration)
    )
    headers = {"Location": f"{PREFIXES[0]}/{job.id}"}
    return json_response(status_message(job), 202, headers)


@router.get("/{job_id}", response_model=ArchiveStatus)
async def registration_status(job_id: JobId, orders: Orders) -> Response:
    """State, stage, the id of the registration, and the UIDs of what was stored by series."""
    return json_response(status_message(orders.get(job_id)))


@router.delete("/{job_id}", status_code=204)
async def cancel_registration(job_id: JobId, orders: Orders) -> Response:
    """Cancel, or forget it when it has ended; what is stored stays in the archive."""
    orders.cancel(orders.get(job_id))
    return Response(status_code=204)
