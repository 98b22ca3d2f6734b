"""Registrations as jobs: a bounded queue in front of one worker thread.

The thread is both the lock and the warm cache of the device. Everything else happens on the event
loop, so a job needs no lock: the worker only posts states to the loop and reads the wish to stop.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from retreg import wire
from retreg.errors import Cancelled, RetRegError
from retreg.messages import RegistrationRequest, RegistrationResult
from retreg_server.registration.base import Report
from retreg_server.serving.errors import INTERNAL, ApiError, api_error, describe
from retreg_server.serving.shelf import Shelf

logger = logging.getLogger(__name__)

Run = Callable[[RegistrationRequest, Report], RegistrationResult]
State = Literal["queued", "running", "done", "failed", "cancelled"]

BUSY_RETRY_S = 2
SMALLEST_STEP = 0.01  # progress below this is not worth an event
CANCELLED = "The registration was cancelled on request."


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


class Job:
    """One registration. status and change belong to the event loop."""

    def __init__(self, request: RegistrationRequest) -> None:
        self.id = secrets.token_hex(16)
        self.model = request.model
        self.fixed_grid = request.fixed.grid
        self.status = Status("queued", "waiting in the queue", 0.0)
        self.change = asyncio.Event()
        self.unwanted = threading.Event()
        self.future: Future[None] | None = None

    def post(self, status: Status) -> None:
        """Enter a new status and wake whoever waits for one."""
        self.status = status
        woken, self.change = self.change, asyncio.Event()
        woken.set()

    async def next_status(self, known: Status, timeout_s: float) -> Status:
        """The status as soon as it differs from the known one, at the latest after timeout_s."""
        if self.status is known:
            try:
                await asyncio.wait_for(self.change.wait(), timeout_s)
            except TimeoutError:
                return known
        return self.status


class Jobs:
    """The queue, the worker, and the jobs that have ended, for as long as they are kept."""

    def __init__(self, run: Run, queue_size: int, ended: Shelf[Job]) -> None:
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")
        self._run = run
        self._queue_size = queue_size
        self._active: dict[str, Job] = {}
        self.ended = ended

    def submit(self, request: RegistrationRequest) -> Job:
        """Queue a request. Raises ApiError 429 when the queue is full."""
        if len(self._active) > self._queue_size:
            raise ApiError(
                429,
                "busy",
                f"{self._queue_size} registrations are waiting already; try again later.",
                {"Retry-After": str(BUSY_RETRY_S)},
            )
        job = Job(request)
        self._active[job.id] = job
        loop = asyncio.get_running_loop()
        job.future = self.worker.submit(self._work, job, request, loop)
        return job

    def get(self, job_id: str) -> Job:
        """The job of that id. Raises ApiError 404."""
        job = self._active.get(job_id) or self.ended.get(job_id)
        if job is None:
            raise ApiError(
                404, "unknown-registration", "There is no such registration; it may have expired."
            )
        return job

    def cancel(self, job: Job) -> None:
        """Stop a job at its next report, or forget it when it has ended."""
        if job.status.has_ended:
            self.ended.pop(job.id)
            return
        job.unwanted.set()
        if job.future is not None and job.future.cancel():
            self._end(job, _failure(Cancelled(CANCELLED)))

    def close(self) -> None:
        """Stop all jobs and forget their results."""
        for job in list(self._active.values()):
            self.cancel(job)
        self.ended.clear()
        self.worker.shutdown(wait=False, cancel_futures=True)

    def _end(self, job: Job, status: Status) -> None:
        self._active.pop(job.id, None)
        self.ended.put(job.id, job, len(status.result) + 1024)
        job.post(status)

    def _work(
        self, job: Job, request: RegistrationRequest, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Runs on the worker thread."""
        start = time.perf_counter()
        try:
            result = self._run(request, _reporter(job, loop))
            status = Status("done", "done", 1.0, wire.dumps(wire.encode_result(result)))
        except RetRegError as error:
            status = _failure(error)
        except MemoryError:
            sentence = "The registration did not fit into the server's memory; crop the images."
            status = Status("failed", "failed", 1.0, error=ApiError(422, "no-transform", sentence))
        except Exception as error:
            logger.error("Job %s failed with %s.", job.id, describe(error))
            status = Status("failed", "failed", 1.0, error=ApiError(500, "internal", INTERNAL))
        seconds = time.perf_counter() - start
        logger.info("Job %s (%s): %s after %.2f s.", job.id, job.model, status.state, seconds)
        loop.call_soon_threadsafe(self._end, job, status)


def _failure(error: RetRegError) -> Status:
    state: State = "cancelled" if isinstance(error, Cancelled) else "failed"
    return Status(state, state, 1.0, error=api_error(error))


def _reporter(job: Job, loop: asyncio.AbstractEventLoop) -> Report:
    """The report of a job, called by the model on the worker thread."""
    last = Status("running", "starting", 0.0)
    loop.call_soon_threadsafe(job.post, last)

    def report(stage: str, fraction: float) -> None:
        nonlocal last
        if job.unwanted.is_set():
            raise Cancelled(CANCELLED)
        if stage != last.stage or abs(fraction - last.fraction) >= SMALLEST_STEP:
            last = Status("running", stage, fraction)
            loop.call_soon_threadsafe(job.post, last)

    return report
