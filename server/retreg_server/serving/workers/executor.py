"""Where registrations run: one process for each device, or anything else with the same verbs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from retreg import wire
from retreg.messages import ModelInfo, Scalar
from retreg.progress import Progress
from retreg.transforms import Affine
from retreg_server.serving.workers.messages import Head, SharedImage
from retreg_server.serving.workers.process_handle import ProcessSpec
from retreg_server.serving.workers.process_pool import ProcessPool

logger = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
MODEL_WORKER = "retreg_server.serving.workers.model_worker:ModelWorker"


@dataclass(frozen=True, eq=False)
class Task:
    """What to register, with options that are complete and checked."""

    fixed: SharedImage
    moving: SharedImage
    model: str
    options: Mapping[str, Scalar]
    initial: Affine | None = None

    @property
    def head(self) -> Head:
        """What a worker needs to know, apart from the voxels."""
        headers = [image.header for image in (self.fixed, self.moving)]
        head = {"model": self.model, "options": dict(self.options), "headers": headers}
        if self.initial is not None:
            head["initial"] = wire.encode_transform(self.initial)
        return head


@dataclass(frozen=True, eq=False)
class Outcome:
    """result: JSON text. seconds: by stage. device_memory: bytes in use afterwards."""

    result: bytes
    seconds: Mapping[str, float]
    device_memory: int


class Executor(Protocol):
    """Runs registrations; belongs to the event loop. Cancelling run() stops the registration."""

    async def start(self) -> tuple[ModelInfo, ...]:
        """Make everything warm; returns the models on offer."""
        ...

    async def run(self, task: Task, progress: Progress, deadline_s: float) -> Outcome:
        """The outcome of a task, which waits for its turn; report is called first when that comes.

        Raises RetRegError, ProcessFailed for an unforeseen failure, ProcessDied, or TimeoutError
        when the work takes longer than deadline_s.
        """
        ...

    @property
    def ready(self) -> int:
        """How many registrations can run at the same time now."""
        ...

    @property
    def places(self) -> int:
        """How many registrations may be handed over at the same time."""
        ...

    def close(self) -> None:
        """Stop everything at once."""
        ...


class LocalExecutor:
    """One process for each device of this machine.

    devices: "cpu" or the numbers of CUDA devices; "auto" is one process for each CUDA device, or
    one on the CPU. Its first process counts them, and is enough to begin with. worker: what the
    processes run, as module:callable, and its arguments. memory_bytes: what each may take beside
    its models. on_restart: called when a process died.
    """

    def __init__(
        self,
        devices: Sequence[str],
        on_restart: Callable[[], None],
        worker: str = MODEL_WORKER,
        arguments: Mapping[str, str] | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        self._worker, self._arguments = worker, arguments or {}
        self._memory_bytes = memory_bytes
        self._is_automatic = "auto" in devices
        specs = [self._spec(each) for each in devices]
        self._pool = ProcessPool("device worker", specs, on_restart)

    async def start(self) -> tuple[ModelInfo, ...]:
        """Load the models in each process."""
        hello = (await self._pool.start())[0]
        if self._is_automatic:
            self._pool.grow([self._spec(str(number)) for number in range(1, hello["devices"])])
        for name, reason in hello["failures"].items():
            logger.error("The model %s cannot be used: %s.", name, reason)
        return wire.decode_models(hello["models"])

    async def run(self, task: Task, progress: Progress, deadline_s: float) -> Outcome:
        """Hand the task to the next idle process."""
        voxels = (task.fixed.voxels, task.moving.voxels)
        answer = await self._pool.ask(task.head, voxels, progress, deadline_s)
        facts = answer.head
        return Outcome(bytes(answer.buffers[0].view), facts["seconds"], facts["device_memory"])

    @property
    def ready(self) -> int:
        """How many processes are warm."""
        return self._pool.ready

    @property
    def places(self) -> int:
        """One for each process that is warm."""
        return max(1, self.ready)

    def close(self) -> None:
        """Kill the processes."""
        self._pool.close()

    def _spec(self, device: str) -> ProcessSpec:
        environment = _visible(device, os.environ.get(VISIBLE))
        return ProcessSpec(self._worker, self._arguments, environment, self._memory_bytes)


def _visible(device: str, allowed: str | None) -> dict[str, str]:
    """The environment in which a process sees its device only, one of those that are allowed."""
    if device == "auto":
        return {}
    if device == "cpu":
        return {VISIBLE: ""}
    names = allowed.split(",") if allowed else []
    number = int(device)
    return {VISIBLE: names[number] if number < len(names) else device}
