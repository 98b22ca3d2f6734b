"""The state of one server: settings, images, jobs and the models it offers."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.metadata import version

from fastapi import Request

from retreg import wire
from retreg.errors import FileError, InputError, OptionError
from retreg.masks import counting
from retreg.messages import ModelInfo, Scalar
from retreg.transforms import Affine
from retreg_server.registration.registry import default_model
from retreg_server.serving.access.caller import audit, caller
from retreg_server.serving.access.failures import Failures
from retreg_server.serving.access.tokens import Tokens
from retreg_server.serving.counted_pool import CountedPool, Room
from retreg_server.serving.errors import ApiError
from retreg_server.serving.fair_line import FairLine, Turn
from retreg_server.serving.jobs import BUSY_RETRY_S, Job, Jobs
from retreg_server.serving.memory_account import Account
from retreg_server.serving.metrics import Metrics
from retreg_server.serving.settings import Settings
from retreg_server.serving.storage.job_store import INTERRUPTED, INTERRUPTION, Store
from retreg_server.serving.storage.memory_cache import MemoryCache
from retreg_server.serving.workers.executor import Executor, LocalExecutor, Task
from retreg_server.serving.workers.messages import Head, Message, SharedBuffer, SharedImage
from retreg_server.serving.workers.process_handle import ProcessDied, ProcessFailed, ProcessSpec
from retreg_server.serving.workers.process_pool import ProcessPool

FILES_WAITING = 64
LARGEST_VOXEL_BYTES = 12  # three numbers of a displacement
LEAST_ANSWER_BYTES = 4 << 20
LOOK_ROOM = Room(3 * 256**3, LEAST_ANSWER_BYTES)  # what the page shows is no larger
MAX_SESSIONS = 10_000
START_WAIT_S = 20.0  # less than clients wait for an answer
UNPACKED_AT_ONCE = 2
FILE_WORKER = "retreg_server.serving.workers.file_worker:FileWorker"
MakeExecutor = Callable[[Settings, Metrics], Executor]


def executor_of(settings: Settings, metrics: Metrics) -> Executor:
    """Worker processes on this machine, or on a cluster. Raises InputError when Ray is missing."""
    if settings.executor == "local":
        memory = settings.worker_memory_bytes
        return LocalExecutor(settings.devices, metrics.restarts.inc, memory_bytes=memory)
    try:
        from retreg_server.serving.workers.ray_executor import Cluster, RayExecutor
    except ImportError:
        raise InputError(
            "The package for Ray is not installed; run pip install '.[ray]' in a checkout, or "
            "use the executor local."
        ) from None
    resources = {"CPU": 1.0} if settings.devices == ("cpu",) else None
    cluster = Cluster(settings.ray_address, (1, settings.ray_replicas), resources)
    return RayExecutor(cluster, metrics.restarts.inc)


@dataclass(frozen=True, eq=False)
class Claimed:
    """An image, and the owners of those who have sent it."""

    image: SharedImage
    owners: set[str]


class Service:
    """What the routes work with; belongs to the event loop. Raises InputError as Store does."""

    def __init__(self, settings: Settings, make_executor: MakeExecutor) -> None:
        self.settings = settings
        self.version = version("retreg")  # asked for once, since it is looked up on the disk
        self.metrics = Metrics()
        self.tokens = Tokens(settings.token, settings.tokens_file)
        self.failures = Failures()
        self.executor = make_executor(settings, self.metrics)  # before the folder: it may raise
        keep_s = settings.keep_s
        self.store = Store(settings.state_dir, settings.result_store_bytes, keep_s)
        self.images: MemoryCache[Claimed] = MemoryCache(settings.image_store_bytes, keep_s)
        # A short body may become a large image.
        self.unpacking = asyncio.Semaphore(UNPACKED_AT_ONCE)
        self.sessions: MemoryCache[str] = MemoryCache(MAX_SESSIONS, keep_s)
        self.fixed_addresses: MemoryCache[str] = MemoryCache(MAX_SESSIONS, keep_s)  # by job
        self.jobs = Jobs(self.executor, self.store, settings, self.metrics)
        self.account = Account(settings.image_store_bytes, self._forget_an_image)
        self.patient_key = secrets.token_hex(32)
        arguments = {"scratch": str(self.store.scratch), "key": self.patient_key}
        spec = ProcessSpec(FILE_WORKER, arguments, {}, settings.file_memory_bytes)
        line = FairLine(lambda: 1, FILES_WAITING, settings.queue_guests, what="files are waiting")
        self._file_worker = ProcessPool("file process", [spec])
        self._files = CountedPool(self._file_worker, line, self.account)
        self._starting: asyncio.Task[tuple[ModelInfo, ...]] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self.metrics.follow_images(lambda: self.images.nbytes, lambda: self.account.claimed)
        self.metrics.follow_store(lambda: self.store.unwritten)
        self.metrics.follow_workers(lambda: self.executor.ready)

    async def warm_up(self) -> None:
        """Start the workers; returns when they are warm."""
        self._starting = asyncio.create_task(self.executor.start())
        await asyncio.wait([self._starting])

    @property
    def is_ready(self) -> bool:
        """Whether a worker is warm."""
        started = self._starting is not None and self._starting.done()
        return started and self.executor.ready > 0

    async def models(self) -> tuple[ModelInfo, ...]:
        """The models on offer, as soon as they are loaded. Raises ApiError 503 after a while."""
        retry = {"Retry-After": str(BUSY_RETRY_S)}
        loading = "The server is loading its models; try again in a moment."
        if self._starting is None:
            raise ApiError(503, "not-ready", loading, retry)
        try:
            async with asyncio.timeout(START_WAIT_S):
                return await asyncio.shield(self._starting)
        except TimeoutError:
            raise ApiError(503, "not-ready", loading, retry) from None
        except asyncio.CancelledError:
            if not self._starting.cancelled():
                raise
            raise ApiError(503, INTERRUPTED, INTERRUPTION, retry) from None

    async def model(
        self, name: str | None, fixed: SharedImage, moving: SharedImage
    ) -> ModelInfo:
        """The model of that name, or the default one for the images. Raises InputError."""
        # A thread looks at volumes: that takes its time, and SciPy and torch the first time.
        wanted = name or await asyncio.to_thread(default_model, fixed.image, moving.image)
        models = await self.models()
        for info in models:
            if info.name == wanted:
                return info
        raise OptionError(
            f"The model {wanted!r} is not offered here; use one of "
            f"{', '.join(info.name for info in models)}."
        )

    def image(self, address: str, which: str) -> SharedImage:
        """The image at an address, if the caller has sent it.

        Raises ApiError 404 that names it by its role.
        """
        image = self.known(address)
        if image is None:
            raise ApiError(
                404, "unknown-image", f"{which} image is not on the server; send it first."
            )
        return image

    def known(self, address: str) -> SharedImage | None:
        """The image at an address, if there is one that the caller has sent."""
        claimed = self.images.get(address)
        if claimed is None or not any(map(caller().may_see, claimed.owners)):
            return None
        return claimed.image

    def keep(self, image: SharedImage) -> SharedImage:
        """Keep an image for the caller, beside all others who have sent it; returns it."""
        known = self.images.get(image.address)
        owners = {caller().owner} | (known.owners if known else set())
        self.images.put(image.address, Claimed(image, owners), len(image.voxels))
        audit("sent", image=image.address)
        return image

    def drop(self, address: str) -> None:
        """Forget an image for the caller; others who have sent it keep it. Raises ApiError 404."""
        self.image(address, "This")
        claimed = self.images.get(address)
        assert claimed is not None
        claimed.owners.discard(caller().owner)
        if not claimed.owners or "admin" in caller().rights:
            self.images.pop(address)
        audit("deleted", image=address)

    async def masked(self, image: SharedImage, mask: SharedImage, role: str) -> SharedImage:
        """The image that counts only where mask is not 0. Raises InputError."""

        def work() -> SharedImage:
            return SharedImage.of(counting(image.image, mask.image, role))

        async with self.unpacking:
            # The mask is one byte a voxel for whoever looks at it.
            claim = self.account.claim(len(image.voxels) + math.prod(image.image.grid.size))
            counted = await asyncio.to_thread(work)
        counted.voxels.claim = claim
        return counted

    async def submit(
        self,
        fixed: SharedImage,
        moving: SharedImage,
        model: ModelInfo,
        options: Mapping[str, Scalar],
        initial: Affine | None = None,
        turn: Turn | None = None,
    ) -> Job:
        """Queue a registration; turn: as of Jobs.submit. Raises OptionError or ApiError 429."""
        model.refuse_idle(options)
        task = Task(fixed, moving, model.name, model.complete(options), initial)
        job = await self.jobs.submit(task, f"{self.version} {model.weights_sha256}", turn)
        self.fixed_addresses.put(job.id, fixed.address, 1)
        return job

    def reading(self, nbytes: int) -> AbstractAsyncContextManager[None]:
        """A turn at the process for files, for all that belongs together; see CountedPool.turn."""
        return self._files.turn(nbytes, self.settings.file_deadline_s)

    async def read(
        self,
        content: SharedBuffer,
        name: str,
        frame: int | None = None,
        sizes: Sequence[int] = (),
    ) -> SharedImage:
        """The image in a file of the given content, read in a turn at the process for files.

        name: one of our making, with the ending of the format. frame: as of read_image. sizes: of
        the files of a series that lie one after the other in content. Raises InputError.
        """
        wanted: Head = {"task": "read", "name": name, "frame": frame, "sizes": list(sizes)}
        limit = self.settings.image_limit
        room = Room(limit, min(limit, len(content)))
        answer = await self._ask_file_worker(wanted, (content,), room)
        head = answer.head
        return SharedImage.received(head["header"], answer.buffers[0], head["address"])

    async def transform_file(self, job: Job, suffix: str) -> SharedBuffer:
        """The transform of a job that is done, as an ITK file."""
        head = {"task": "transform", "suffix": suffix, "grid": wire.loads(job.record.grid)}
        enclosed = (SharedBuffer.of(job.status.result),)
        return await self._file(head, enclosed, _room_for(job))

    async def warped_file(self, job: Job, suffix: str) -> SharedBuffer:
        """The moving image of a job that is done on its fixed grid, as a file."""
        moving = self.image(job.record.moving, "The moving")
        head = {"task": "warped", "suffix": suffix, "grid": wire.loads(job.record.grid)}
        head["header"] = moving.header
        enclosed = (SharedBuffer.of(job.status.result), moving.voxels)
        return await self._file(head, enclosed, _room_for(job))

    async def outputs_file(self, job: Job, fixed: SharedImage, moving: SharedImage) -> SharedBuffer:
        """What `retreg register` writes of a job that is done, in a zip."""
        head = {"task": "outputs", "headers": [fixed.header, moving.header]}
        enclosed = (SharedBuffer.of(job.status.result), fixed.voxels, moving.voxels)
        return await self._file(head, enclosed, _room_for(job))

    async def map_file(self, job: Job, name: str, suffix: str) -> SharedBuffer:
        """A map of a job that is done on its fixed grid, as a file. Raises InputError."""
        head = {"task": "map", "name": name, "suffix": suffix}
        head["grid"] = wire.loads(job.record.grid)
        enclosed = (SharedBuffer.of(job.status.result),)
        return await self._file(head, enclosed, _room_for(job))

    async def look_task(self, head: Head, *enclosed: SharedBuffer) -> Message:
        """What the process for files makes of a task of look_tasks. Raises InputError."""
        return await self._in_a_turn(head, enclosed, LOOK_ROOM)

    async def expire(self) -> None:
        """Forget images and results that nobody has used for a while."""
        self.images.expire()
        self.sessions.expire()
        await self.store.expire()

    def begin_stop(self) -> asyncio.Task[None]:
        """Take no more orders, and finish or hand back all jobs; the end of the task is theirs."""
        if self._stopping is None:
            if self._starting is not None:
                self._starting.cancel()
            self.jobs.begin_stop()
            self._stopping = asyncio.create_task(self.jobs.close())
        return self._stopping

    async def close(self) -> None:
        """Finish or hand back all jobs, stop all processes, and forget all images."""
        await self.begin_stop()
        self.executor.close()
        self._file_worker.close()
        self.images.clear()
        self.store.close()

    async def _file(self, head: Head, enclosed: Sequence[SharedBuffer], room: Room) -> SharedBuffer:
        return (await self._in_a_turn(head, enclosed, room)).buffers[0]

    async def _in_a_turn(
        self, head: Head, enclosed: Sequence[SharedBuffer], room: Room
    ) -> Message:
        """As _ask_file_worker, for what is asked on its own."""
        async with self.reading(sum(map(len, enclosed))):
            return await self._ask_file_worker(head, enclosed, room)

    async def _ask_file_worker(
        self, head: Head, enclosed: Sequence[SharedBuffer], room: Room
    ) -> Message:
        """The answer of the process for files. Raises FileError, or ApiError as CountedPool.ask."""
        try:
            return await self._files.ask(head, enclosed, room, self.settings.file_deadline_s)
        except (TimeoutError, ProcessDied, ProcessFailed):
            raise FileError(
                "The file takes more time or memory than the server allows; send a smaller one, or "
                "one without compression."
            ) from None

    def _forget_an_image(self) -> bool:
        """Make room; images in the queue would take theirs along."""
        return self.images.drop_oldest(but=self.jobs.images)


def _room_for(job: Job) -> Room:
    """For a file on the grid of a job."""
    voxels = math.prod(wire.decode_grid(wire.loads(job.record.grid)).size)
    most = voxels * LARGEST_VOXEL_BYTES
    return Room(most, min(most, LEAST_ANSWER_BYTES))


async def service_of(request: Request) -> Service:
    """The service behind a request, for use with Depends.

    Awaits nothing; but FastAPI would run a plain function on a thread, which costs a millisecond.
    """
    service = request.app.state.service
    assert isinstance(service, Service)
    return service
