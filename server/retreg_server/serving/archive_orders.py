"""Registrations of two series of archives, or that were sent: get, register as any other, store."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retreg import wire
from retreg.errors import Cancelled, RetRegError, ServerError
from retreg.messages import Scalar
from retreg.quality import Quality
from retreg_server.dicom.archives import Archive, SeriesName
from retreg_server.serving.access.caller import caller
from retreg_server.serving.counted_pool import CountedPool, Room
from retreg_server.serving.errors import INTERNAL, ApiError, api_error
from retreg_server.serving.fair_line import FairLine
from retreg_server.serving.jobs import Status
from retreg_server.serving.service import Service
from retreg_server.serving.workers.messages import Head, Message, SharedBuffer, SharedImage
from retreg_server.serving.workers.process_handle import ProcessDied, ProcessFailed, ProcessSpec
from retreg_server.serving.workers.process_main import CANCELLED
from retreg_server.serving.workers.process_pool import ProcessPool

logger = logging.getLogger(__name__)

WORKER = "retreg_server.serving.workers.archive_worker:ArchiveWorker"
LOOK_S = 1.0
FAILED = (
    "The registration failed, so nothing is stored: an archive should keep only what may be right."
)


@dataclass(frozen=True, eq=False)
class Wanted:
    """A series: what the process for archives is asked for it, with what files it already has."""

    head: Head
    files: Sequence[SharedBuffer] = ()

    @classmethod
    def archived(cls, archive: Archive, series: SeriesName) -> Wanted:
        """One that an archive has."""
        return cls({"task": "fetch", "archive": archive.name, **asdict(series)})


@dataclass(frozen=True, eq=False)
class Order:
    """Two series, and what to do with them.

    target: what the process for archives is asked in order to store objects, without these.
    registration: the id of one of these images that is to be stored, instead of a new one.
    pauses_s: before each further attempt to store what could not be stored.
    """

    fixed: Wanted
    moving: Wanted
    model: str | None
    options: Mapping[str, Scalar]
    kinds: Sequence[str]
    target: Head
    registration: str | None = None
    pauses_s: Sequence[float] = ()


@dataclass(eq=False)
class ArchiveJob:
    """Where an order stands; belongs to the event loop.

    registration: the id of the job, once there is one. stored: instance UIDs by series.
    """

    id: str
    status: Status
    registration: str | None = None
    stored: Mapping[str, Sequence[str]] = field(default_factory=dict)
    owner: str = ""
    quality: Quality | None = None
    note: str = ""
    ended_at: float | None = None
    work: asyncio.Task[None] | None = None


class ArchiveOrders:
    """The orders of a server, kept in memory; belongs to the event loop."""

    def __init__(self, service: Service) -> None:
        settings = service.settings
        self._service, self._jobs = service, dict[str, ArchiveJob]()
        archives = {
            name: {part: value for part, value in asdict(archive).items() if part != "name"}
            for name, archive in settings.archives.items()
        }
        bounds = {
            "received_bytes": settings.image_limit,
            "idle_s": settings.archive_idle_s,
            "total_s": settings.archive_total_s,
        }
        arguments = {"archives": archives, "key": service.patient_key, "bounds": bounds}
        arguments["destinations"] = {
            name: asdict(each) for name, each in settings.peers.destinations.items()
        }
        arguments["title"] = settings.dicom_title
        spec = ProcessSpec(WORKER, arguments, {}, settings.file_memory_bytes)
        self._pool = ProcessPool("archive process", [spec])
        # As long as there can be orders: what was accepted is not refused later.
        self._line = FairLine(lambda: 1, settings.queue_size, settings.queue_size)
        self._counted = CountedPool(self._pool, self._line, service.account)

    def begin(self, order: Order) -> ArchiveJob:
        """Start the work. Raises ApiError 429 when full."""
        self._expire()
        waiting = sum(not job.status.has_ended for job in self._jobs.values())
        if waiting >= self._service.settings.queue_size:
            raise ApiError(
                429,
                "busy",
                f"{waiting} registrations of archives are under way already; try again later.",
                {"Retry-After": str(self._line.retry_after_s())},
            )
        job = ArchiveJob(secrets.token_hex(16), Status("queued", "waiting for the archive", 0.0))
        job.owner = caller().owner
        self._jobs[job.id] = job
        job.work = asyncio.create_task(self._live(job, order))
        return job

    def get(self, job_id: str) -> ArchiveJob:
        """The order of that id. Raises ApiError 404."""
        job = self._jobs.get(job_id)
        if job is None or not caller().may_see(job.owner):
            raise ApiError(
                404, "unknown-registration", "There is no such registration; it may have expired."
            )
        return job

    def cancel(self, job: ArchiveJob) -> None:
        """Stop an order, or forget it when it has ended."""
        if job.status.has_ended or job.work is None:
            self._jobs.pop(job.id, None)
        else:
            job.work.cancel()

    async def close(self) -> None:
        """Stop everything."""
        works = [job.work for job in self._jobs.values() if job.work is not None]
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        self._pool.close()

    def _expire(self) -> None:
        oldest = time.monotonic() - self._service.settings.keep_s
        for job in list(self._jobs.values()):
            if job.ended_at is not None and job.ended_at < oldest:
                del self._jobs[job.id]

    async def _live(self, job: ArchiveJob, order: Order) -> None:
        """Do the work; the only place where an order ends."""
        folder = self._service.store.scratch / f"archive-{job.id}"
        try:
            await self._work(job, order, folder)
            job.status = Status("done", "done", 1.0)
        except asyncio.CancelledError:
            stopped = api_error(Cancelled(CANCELLED))
            job.status = Status("cancelled", "cancelled", 1.0, error=stopped)
        except ApiError as error:
            job.status = Status("failed", "failed", 1.0, error=error)
        except ServerError as error:
            job.status = Status("failed", "failed", 1.0, error=ApiError(502, "archive", str(error)))
        except RetRegError as error:
            job.status = Status("failed", "failed", 1.0, error=api_error(error))
        except Exception as error:
            logger.error("An order of an archive failed with %s.", type(error).__name__)
            job.status = Status("failed", "failed", 1.0, error=ApiError(500, "internal", INTERNAL))
        finally:
            job.ended_at = time.monotonic()
            with suppress(OSError):
                await asyncio.to_thread(shutil.rmtree, folder, True)

    async def _work(self, job: ArchiveJob, order: Order, folder: Path) -> None:
        series = {"fixed": order.fixed, "moving": order.moving}
        images = [
            await self._image(job, wanted, folder / role, n / 4)
            for n, (role, wanted) in enumerate(series.items())
        ]
        result = await self._result(job, order, images)
        job.quality = await asyncio.to_thread(_quality, result)
        if job.quality.verdict == "fail":
            job.note = FAILED
        elif order.kinds:
            head = {**order.target, "kinds": list(order.kinds)}
            head["folders"] = [str(folder / role) for role in series]
            head["headers"] = [image.header for image in images]
            enclosed = (SharedBuffer.of(result), *(image.voxels for image in images))
            job.stored = await self._stored(job, head, enclosed, order.pauses_s)

    async def _stored(
        self,
        job: ArchiveJob,
        head: Head,
        enclosed: Sequence[SharedBuffer],
        pauses_s: Sequence[float],
    ) -> Mapping[str, Sequence[str]]:
        """UIDs of the stored instances by series, at the last attempt."""
        for pause_s in pauses_s:
            try:
                return (await self._ask(job, head, enclosed, 0.9)).head["stored"]
            except ServerError as error:
                logger.warning("%s The next attempt is made in %g s.", error, pause_s)
            await asyncio.sleep(pause_s)
        return (await self._ask(job, head, enclosed, 0.9)).head["stored"]

    async def _image(
        self, job: ArchiveJob, wanted: Wanted, folder: Path, begun: float
    ) -> SharedImage:
        answer = await self._ask(job, {**wanted.head, "folder": str(folder)}, wanted.files, begun)
        header, address = answer.head["header"], answer.head["address"]
        image = SharedImage.received(header, answer.buffers[0], address)
        self._service.keep(image)  # for the page that shows the result
        return image

    async def _result(
        self, job: ArchiveJob, order: Order, images: Sequence[SharedImage]
    ) -> bytes:
        """The result as JSON text, of a registration that is named or of a new one."""
        if order.registration is None:
            return await self._register(job, order, images)
        service = self._service
        named = await service.jobs.get(order.registration)
        addresses = [service.fixed_addresses.get(named.id), named.record.moving]
        if named.status.state != "done" or addresses != [image.address for image in images]:
            raise ApiError(
                422,
                "bad-input",
                "There is no result of these two series under that id; name the series that were "
                "registered, the fixed one as fixed.",
            )
        job.registration = named.id
        return named.status.result

    async def _register(
        self, job: ArchiveJob, order: Order, images: Sequence[SharedImage]
    ) -> bytes:
        """The result as JSON text; the registration is a job that can be looked at on its own."""
        service = self._service
        model = await service.model(order.model, *images)
        registration = await service.submit(images[0], images[1], model, order.options)
        job.registration = registration.id
        try:
            status = registration.status
            while not status.has_ended:
                done = 0.5 + 0.4 * status.fraction
                job.status = Status("running", status.stage, done)
                status = await registration.next_status(status, LOOK_S)
        finally:
            if not registration.status.has_ended:
                await service.jobs.cancel(registration)
        if status.error is not None:
            raise status.error
        return status.result

    async def _ask(
        self, job: ArchiveJob, head: Head, enclosed: Sequence[SharedBuffer], begun: float
    ) -> Message:
        """Ask the process for archives; begun: the fraction of the order that is done before."""

        def tell(stage: str, fraction: float) -> None:
            job.status = Status("running", stage, begun + 0.1 * fraction)

        deadline_s = 2 * self._service.settings.archive_total_s
        limit = self._service.settings.image_limit
        try:
            room = Room(limit, limit)  # a series is fetched once
            async with self._counted.turn(0, deadline_s):
                return await self._counted.ask(head, enclosed, room, deadline_s, tell)
        except (TimeoutError, ProcessDied, ProcessFailed) as error:
            logger.error("A process for archives ended with %s: %s.", type(error).__name__, error)
            raise ServerError(
                "The series takes more time or memory than the server allows; choose a smaller "
                "one, or allow more in the settings."
            ) from None


def _quality(result: bytes) -> Quality:
    return wire.decode_result(wire.loads(result)).quality


def status_message(job: ArchiveJob) -> dict[str, Any]:
    """The JSON of an order."""
    message: dict[str, Any] = {
        "id": job.id,
        "state": job.status.state,
        "stage": job.status.stage,
        "fraction": job.status.fraction,
        "registration": job.registration,
        "stored": {series: list(uids) for series, uids in job.stored.items()},
    }
    if job.quality is not None:
        message |= {"verdict": job.quality.verdict, "reason": job.quality.reason}
    if job.note:
        message["note"] = job.note
    if job.status.error is not None:
        message["error"] = wire.encode_error(job.status.error.slug, job.status.error.message)
    return message
