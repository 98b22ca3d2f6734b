"""Images that are sent by C-STORE: kept until a study is complete, then ordered by rule."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from importlib.util import find_spec
from typing import Any

from retreg.errors import InputError, RetRegError
from retreg_server.dicom.peers import Rule
from retreg_server.dicom.rules import pairs
from retreg_server.serving.access.caller import Caller, answer_to
from retreg_server.serving.archive_orders import ArchiveJob, ArchiveOrders, Order, Wanted
from retreg_server.serving.errors import ApiError
from retreg_server.serving.service import Service
from retreg_server.serving.studies import Studies, Study
from retreg_server.serving.workers.messages import Message
from retreg_server.serving.workers.process_handle import ProcessDied, ProcessFailed, ProcessSpec
from retreg_server.serving.workers.process_pool import ProcessPool

logger = logging.getLogger(__name__)

WORKER = "retreg_server.serving.workers.receiver_worker:ReceiverWorker"
KEPT, NO_ROOM = 0x0000, 0xA700  # PS3.4, table B.2-1
LEAST_LOOK_S, LOOK_S = 0.05, 0.5  # between looks at which studies are complete
BUSY = (429, 503)
BUSY_PAUSE_S = 2.0
FURTHER_PAUSE = 4.0  # of the second pause before results are sent again, against the first


def receiving(service: Service, orders: ArchiveOrders) -> AbstractAsyncContextManager[None]:
    """What receives images within its block, where the settings open a port. Raises InputError."""
    if service.settings.dicom_port is None:
        return nullcontext()
    try:
        return Intake(service, orders).receiving()
    except InputError:
        service.store.close()  # there will be no server to do it
        raise


class Intake:
    """What a server does with images by C-STORE; belongs to the event loop. Raises InputError."""

    def __init__(self, service: Service, orders: ArchiveOrders) -> None:
        if find_spec("pynetdicom") is None:
            raise InputError(
                "The package for C-STORE is not installed; run pip install '.[dimse]' in a "
                "checkout, or leave --dicom-port out."
            )
        settings = service.settings
        _refuse_taken(settings.dicom_host, settings.dicom_port or 0)
        self._settings, self._orders, self._account = settings, orders, service.account
        self._studies = Studies()
        self._work: set[asyncio.Task[None]] = set()
        arguments = {
            "address": [settings.dicom_host, settings.dicom_port],
            "title": settings.dicom_title,
            "senders": {name: each.table for name, each in settings.peers.senders.items()},
            "bounds": {
                "object_bytes": settings.image_limit,
                "object_s": settings.upload_total_s,
                "idle_s": settings.archive_idle_s,
            },
            "scratch": str(service.store.scratch),
        }
        spec = ProcessSpec(WORKER, arguments, {}, settings.file_memory_bytes)
        self._pool = ProcessPool("process for C-STORE", [spec])

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[None]:
        """Receive within this block; what is not registered at its end is dropped, with a line."""
        running = asyncio.create_task(self._run())
        yield
        self._pool.close()
        for work in (running, *self._work):
            work.cancel()
        await asyncio.gather(running, *self._work, return_exceptions=True)
        for study in self._studies.open:
            logger.warning("%s is dropped, as the server stops.", study)

    async def _run(self) -> None:
        """Receive until cancelled; a process that dies loses what was not acknowledged."""
        answer_to(Caller("C-STORE"))
        while True:
            try:
                listening = await self._pool.ask({"task": "listen"})
                logger.info(
                    "C-STORE is accepted by %s at %s, port %d.", self._settings.dicom_title,
                    self._settings.dicom_host, listening.head["port"],
                )  # fmt: skip
                await self._receive()
            except (ProcessDied, ProcessFailed, RetRegError) as error:
                logger.error("Images by C-STORE cannot be received now: %s", error or "it died.")
                self._studies.all_ended()
                await asyncio.sleep(BUSY_PAUSE_S)

    async def _receive(self) -> None:
        settings, status = self._settings, KEPT
        wait_s = min(LOOK_S, max(LEAST_LOOK_S, settings.dicom_settle_s / 2))
        while True:
            message = await self._pool.ask({"task": "next", "status": status, "wait_s": wait_s})
            status = self._heard(message)
            now_s = time.monotonic()
            for study in self._studies.settled(now_s, settings.dicom_settle_s):
                self._match(study)
            for study in self._studies.expired(now_s, settings.dicom_keep_s):
                logger.warning("%s is dropped: it was not complete in time.", study)

    def _heard(self, message: Message) -> int:
        """Note what has happened; what the sender of an object is answered."""
        head = message.head
        match head["event"]:
            case "arrived":
                return self._keep(head, message)
            case "ended":
                self._studies.ended(head["words"][0], time.monotonic())
            case "refused":
                title, address, why = head["words"]
                logger.warning("C-STORE: %r at %s was refused: %s.", title, address, why)
            case "unusable":
                title, status_hex = head["words"]
                logger.warning(
                    "C-STORE: an object from %s was refused (%s): it is damaged, no image, or "
                    "another than was said.", title, status_hex,
                )  # fmt: skip
        return KEPT

    def _keep(self, head: Mapping[str, Any], message: Message) -> int:
        (content,) = message.buffers
        try:
            if not self._studies.has_room:
                raise ApiError(503, "busy", "There are too many objects.")
            content.claim = self._account.claim(len(content))
        except ApiError:
            logger.warning("C-STORE: there is no room for an object from %s.", head["sender"])
            return NO_ROOM
        self._studies.add(head, content, time.monotonic())
        return KEPT

    def _match(self, study: Study) -> None:
        """Order what the rules say of a study that is complete."""
        facts = list(study.facts.values())
        found = [
            (rule, pair) for rule in self._settings.peers.rules.values()
            for pair in pairs(rule, facts)
        ]  # fmt: skip
        if not found:
            logger.warning("%s is dropped: no rule matches two of its series.", study)
        for rule, (fixed, moving) in found:
            order = self._order(study, rule, fixed, moving)
            work = asyncio.create_task(self._carry_out(order, f"{study}, rule {rule.name}", rule))
            self._work.add(work)
            work.add_done_callback(self._work.discard)

    def _order(self, study: Study, rule: Rule, fixed: str, moving: str) -> Order:
        fixed_files, moving_files = (
            Wanted({"task": "unpack"}, tuple(study.files[uid].values())) for uid in (fixed, moving)
        )
        target = {"task": "send", "destination": rule.destination}
        pause_s = self._settings.dicom_retry_s
        return Order(
            fixed_files, moving_files, rule.model, rule.options, rule.store, target,
            pauses_s=(pause_s, FURTHER_PAUSE * pause_s),
        )  # fmt: skip

    async def _carry_out(self, order: Order, what: str, rule: Rule) -> None:
        """Order it, again while the server is busy, and tell the log how it ended."""
        end_s = time.monotonic() + self._settings.dicom_keep_s
        try:
            while (job := await self._ended(order)) is None:
                if time.monotonic() > end_s:
                    logger.error("%s: dropped, the server was too busy for too long.", what)
                    return
                await asyncio.sleep(BUSY_PAUSE_S)
        except asyncio.CancelledError:
            logger.warning("%s: dropped, as the server stops.", what)
            raise
        _tell(job, what, rule.destination)

    async def _ended(self, order: Order) -> ArchiveJob | None:
        """The job of an order when it has ended; None when the server was too busy for it."""
        with suppress(ApiError):
            job = self._orders.begin(order)
            assert job.work is not None
            await asyncio.wait([job.work])
            if job.status.error is None or job.status.error.status not in BUSY:
                return job
        return None


def _refuse_taken(host: str, port: int) -> None:
    """Raise InputError when nobody can listen there; the process that will would tell too late."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError):
        raise InputError(
            f"The address {host} with the port {port} cannot be used for DICOM; it is taken or "
            "not one of this machine. Choose another --dicom-port or --dicom-host."
        ) from None


def _tell(job: ArchiveJob, what: str, destination: str) -> None:
    if job.status.error is not None:
        logger.error("%s: nothing is sent. %s", what, job.status.error.message)
    elif job.quality is None or job.note:
        logger.warning("%s: nothing is sent. %s", what, job.note)
    else:
        count = sum(map(len, job.stored.values()))
        logger.info(
            "%s: %s, %d objects sent to %s.", what, job.quality.verdict, count, destination
        )
