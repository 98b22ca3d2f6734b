"""Registrations as jobs: a bounded queue, deadlines, cancellation, and what is kept of them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Literal

from retreg import wire
from retreg.errors import Cancelled, RetRegError
from retreg_server.serving.access.caller import Caller, audit, caller
from retreg_server.serving.errors import INTERNAL, ApiError, api_error
from retreg_server.serving.fair_line import FairLine, Turn
from retreg_server.serving.metrics import Metrics
from retreg_server.serving.middleware.request_log import request_id
from retreg_server.serving.settings import Settings
from retreg_server.serving.storage import job_store as records
from retreg_server.serving.storage.database import Record
from retreg_server.serving.storage.job_store import Store
from retreg_server.serving.workers.executor import Executor, Task
from retreg_server.serving.workers.messages import SharedImage
from retreg_server.serving.workers.process_handle import ProcessDied, ProcessFailed
from retreg_server.serving.workers.process_main import CANCELLED

logger = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed", "cancelled"]

BUSY_RETRY_S = 2
PRIORITY_SHARE = 4.0  # of the clients that the settings name, against 1 of the others
CRASHED = (
    "The process that worked on the registration ended unexpectedly, perhaps for lack of memory; "
    "try again, with smaller images if that does not help."
)


@dataclass(frozen=True, eq=False)
class Status:
    """Where a job stands. result: JSON text when done; error: when failed or cancelled."""

    state: State
    stage: str
    fraction: float
    result: bytes = b""
    error: ApiError | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state not in ("queued", "running")


QUEUED = Status("queued", "waiting in the queue", 0.0)


class Job:
    """One registration; belongs to the event loop."""

    def __init__(self, record: Record, status: Status) -> None:
        self.record = record
        self.status = status
        self.watchers = 0
        self.asked_at = time.monotonic()
        self.images: tuple[SharedImage, ...] = ()
        self.work: asyncio.Task[Status] | None = None
        self.life: asyncio.Task[None] | None = None
        self.is_interrupted = False
        self._change = asyncio.Event()

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        return self.record.id

    def file_name(self, what: str, ending: str) -> str:
        """Such as transform-ID.h5: of no other job, so that no client can mix two patients."""
        return f"{what}-{self.id}.{ending}"

    def post(self, status: Status) -> None:
        """Enter a new status and wake whoever waits for one."""
        self.status = status
        woken, self._change = self._change, asyncio.Event()
        woken.set()

    async def next_status(self, known: Status, timeout_s: float) -> Status:
        """The status as soon as it differs from the known one, at the latest after timeout_s."""
        if self.status is known:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._change.wait(), timeout_s)
        return self.status


class Jobs:
    """The jobs of a server: those that run here, and through the store those that have ended."""

    def __init__(
        self, executor: Executor, store: Store, settings: Settings, metrics: Metrics
    ) -> None:
        self._executor = executor
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._active: dict[str, Job] = {}
        self.line = FairLine(
            lambda: executor.places,
            settings.queue_size,
            settings.queue_guests,
            lambda client: PRIORITY_SHARE if client in settings.priority_clients else 1.0,
        )
        self._is_stopping = False
        metrics.follow_queue(lambda: self._count("queued"), lambda: self._count("running"))

    async def submit(self, task: Task, version: str, turn: Turn | None = None) -> Job:
        """Queue a task, or answer it from what is kept.

        version: of what will answer; results of other versions are not reused. turn: the place in
        the line, where one was taken before; whoever took it lets it go if this raises. Raises
        ApiError 429 when the queue is full, 503 when the server stops.
        """
        client = caller()
        client.require("register")
        if self._is_stopping:
            retry = {"Retry-After": str(BUSY_RETRY_S)}
            raise ApiError(503, records.INTERRUPTED, records.INTERRUPTION, retry)
        key = _key(task, f"{version} {client.owner}")
        grid = wire.dumps(wire.encode_grid(task.fixed.image.grid)).decode("ascii")
        record = Record(
            *(secrets.token_hex(16), key, task.model, grid, task.moving.address, "queued"),
            owner=client.owner,
        )
        answered = await self._store.answered(key) if self._settings.reuse_results else None
        if answered is not None:
            self._metrics.reused.inc()
            record = replace(answered, id=record.id)
            await self._store.add(record)
            if turn is not None:
                turn.leave()
            job = Job(record, _status(record))
        else:
            job = await self._queued(Job(record, QUEUED), task, client, turn)
        audit("ran", job=job.id, fixed=task.fixed.address, moving=task.moving.address)
        return job

    async def _queued(self, job: Job, task: Task, client: Caller, turn: Turn | None) -> Job:
        """The job, which waits in the line from now on."""
        self._refuse_too_many(client)  # nothing is awaited until it counts itself
        turn = turn or self.line.enter(client.line)
        turn.prepare()
        job.images = (task.fixed, task.moving)
        self._active[job.id] = job
        try:
            await self._store.add(job.record)
        except BaseException:  # whoever asked has gone
            del self._active[job.id]
            turn.leave()
            raise
        job.work = asyncio.create_task(self._outcome(job, task, turn, request_id()))
        job.life = asyncio.create_task(self._live(job, job.work, request_id()))
        return job

    def check(self) -> None:
        """Raise ApiError 429 when there is no place for another one of the caller."""
        self._refuse_too_many(caller())
        self.line.check(caller().line)

    @contextmanager
    def place(self) -> Iterator[Turn]:
        """A place in the line for a job whose images are made within this block.

        It is given up when the block fails. Raises ApiError 429 when the queue is full.
        """
        turn = self.line.enter(caller().line, is_ready=False)
        try:
            yield turn
        except BaseException:
            turn.leave()
            raise

    async def get(self, job_id: str) -> Job:
        """The job of that id, if the caller may see it. Raises ApiError 404."""
        job = self._active.get(job_id)
        if job is not None and caller().may_see(job.record.owner):
            job.asked_at = time.monotonic()
            return job
        record = await self._store.get(job_id)
        if record is None or not caller().may_see(record.owner):
            raise ApiError(
                404, "unknown-registration", "There is no such registration; it may have expired."
            )
        return Job(record, _status(record))

    async def keep_edited(self, job: Job, result: bytes) -> Job:
        """Keep what people made of a job that is done, under an id of its own."""
        fresh = replace(job.record, id=secrets.token_hex(16), key=secrets.token_hex(32))
        record = _recorded(fresh, Status("done", "done", 1.0, result))
        await self._store.add(record)
        return Job(record, _status(record))

    async def cancel(self, job: Job) -> None:
        """Stop a job at its next report, or forget it when it has ended."""
        audit("deleted", job=job.id)
        if job.work is None or job.status.has_ended:
            await self._store.remove(job.id)
        else:
            job.work.cancel()

    async def watch(self, job: Job, interval_s: float) -> AsyncGenerator[Status, None]:
        """The status at each change and at least once in interval_s, until the job has ended.

        When all who watched have gone, nobody may want the result: see _abandon.
        """
        job.watchers += 1
        status = job.status
        try:
            yield status
            while not status.has_ended:
                status = await job.next_status(status, interval_s)
                if self._is_stopping and not status.has_ended:
                    status = _status(records.interrupted(job.record))
                yield status
        finally:
            job.watchers -= 1
            job.asked_at = time.monotonic()
            self._abandon(job)

    def begin_stop(self) -> None:
        """Hand back what waits as interrupted, and tell so to all who watch: order it again.

        What runs may finish, but nobody could fetch it here: the next server will have the result.
        """
        self._is_stopping = True
        for job in self._active.values():
            if job.status.state == "queued":
                _interrupt(job)
            job.post(job.status)

    async def close(self) -> None:
        """Give running jobs the time to finish; those that take it all are interrupted."""
        self.begin_stop()
        lives = [job.life for job in self._active.values() if job.life is not None]
        if lives:
            await asyncio.wait(lives, timeout=self._settings.stop_grace_s)
        for job in self._active.values():
            _interrupt(job)
        self._executor.close()
        await asyncio.gather(*lives, return_exceptions=True)

    @property
    def images(self) -> set[str]:
        """The addresses of all images in the queue, which are kept whatever happens."""
        return {each.address for job in self._active.values() for each in job.images}

    def _refuse_too_many(self, client: Caller) -> None:
        """Raise ApiError 429 when the caller has as many registrations as its token allows."""
        own = sum(job.record.owner == client.owner for job in self._active.values())
        if client.jobs is not None and own >= client.jobs:
            raise ApiError(
                429,
                "busy",
                f"{own} registrations of yours are under way already; try again later.",
                {"Retry-After": str(BUSY_RETRY_S)},
            )

    def _abandon(self, job: Job) -> None:
        """Cancel a job that nobody watches and nobody has asked for a while."""
        left_s = job.asked_at + self._settings.abandoned_s - time.monotonic()
        if job.watchers or job.status.has_ended or job.work is None:
            return
        if left_s > 0:
            asyncio.get_running_loop().call_later(left_s, self._abandon, job)
        else:
            job.work.cancel()

    def _count(self, state: State) -> int:
        return sum(job.status.state == state for job in self._active.values())

    async def _live(self, job: Job, work: asyncio.Task[Status], request: str) -> None:
        """Waits for the work on a job; the only place where a job ends."""
        begun = time.perf_counter()
        await asyncio.wait([work])
        status = _failure(Cancelled(CANCELLED)) if work.cancelled() else work.result()
        job.work = None  # a circle, in which the images would stay until the next collection
        if job.is_interrupted and status.state != "done":
            status = _status(records.interrupted(job.record))
        seconds = time.perf_counter() - begun
        facts = {"request": request, "job": job.id, "state": status.state}
        model = job.record.model
        logger.info(
            "Job %s (%s): %s after %.2f s.", job.id, model, status.state, seconds, extra=facts
        )
        self._metrics.ended(model, status.state, seconds)
        job.record = _recorded(job.record, status)
        job.images = ()
        await self._store.add(job.record)
        del self._active[job.id]
        job.post(status)

    async def _outcome(self, job: Job, task: Task, turn: Turn, request: str) -> Status:
        try:
            await turn.come()
            return await self._run(job, task, request)
        finally:
            turn.leave()

    async def _run(self, job: Job, task: Task, request: str) -> Status:
        deadline_s = self._settings.job_deadline_s

        def tell(stage: str, fraction: float) -> None:
            job.post(Status("running", stage, fraction))

        try:
            outcome = await self._executor.run(task, tell, deadline_s)
        except TimeoutError:
            sentence = f"The registration took longer than the {deadline_s:g} s that are allowed"
            return _failed(504, "deadline", sentence + "; use smaller images or a faster model.")
        except RetRegError as error:
            return _failure(error)
        except ProcessDied:
            return _failed(500, "worker-died", CRASHED)
        except ProcessFailed as error:
            logger.error("Job %s failed with %s.", job.id, error, extra={"request": request})
            return _failed(500, "internal", INTERNAL)
        self._metrics.worked(task.model, outcome)
        return Status("done", "done", 1.0, outcome.result)


def _key(task: Task, version: str) -> str:
    """The same for requests that must have the same answer."""
    images = (task.fixed.address, task.moving.address)
    asked = [*images, task.head.get("initial"), task.model, version, sorted(task.options.items())]
    return hashlib.sha256(wire.dumps(asked)).hexdigest()


def _interrupt(job: Job) -> None:
    job.is_interrupted = True
    if job.work is not None:
        job.work.cancel()


def _failure(error: RetRegError) -> Status:
    state: State = "cancelled" if isinstance(error, Cancelled) else "failed"
    return Status(state, state, 1.0, error=api_error(error))


def _failed(status: int, slug: str, sentence: str) -> Status:
    return Status("failed", "failed", 1.0, error=ApiError(status, slug, sentence))


def _status(record: Record) -> Status:
    """The status of a record that has ended."""
    if record.state == "done":
        return Status("done", "done", 1.0, record.result)
    state: State = "cancelled" if record.state == "cancelled" else "failed"
    error = ApiError(record.status, record.slug, record.message)
    return Status(state, state, 1.0, error=error)


def _recorded(record: Record, status: Status) -> Record:
    """The record of a job that has ended."""
    ended = replace(record, state=status.state, result=status.result)
    error = status.error
    if error is None:
        return ended
    return replace(ended, status=error.status, slug=error.slug, message=error.message)
