"""Where registrations run: one process for each device, or anything else with the same verbs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from retreg import wire
from retreg.messages import ModelInfo, Scalar
from retreg_server.registration.base import Report
from retreg_server.serving.children import Role
from retreg_server.serving.crew import Crew
from retreg_server.serving.parcels import ImageParcel

logger = logging.getLogger(__name__)

DEVICE_WORKER = "retreg_server.serving.device_worker:DeviceWorker"


@dataclass(frozen=True, eq=False)
class Task:
    """What to register, with options that are complete and checked."""

    fixed: ImageParcel
    moving: ImageParcel
    model: str
    options: Mapping[str, Scalar]


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

    async def run(self, task: Task, report: Report, deadline_s: float) -> Outcome:
        """The outcome of a task, which waits for its turn; report is called first when that comes.

        Raises RetRegError, ChildFailed for an unforeseen failure, ChildDied, or TimeoutError when
        the work takes longer than deadline_s.
        """
        ...

    @property
    def ready(self) -> int:
        """How many registrations can run at the same time now."""
        ...

    def close(self) -> None:
        """Stop everything at once."""
        ...


class LocalExecutor:
    """One process for each device of this machine.

    devices: "auto", "cpu", or the numbers of CUDA devices. worker: what the processes run, as
    module:callable, and its arguments. on_restart: called when a process died.
    """

    def __init__(
        self,
        devices: Sequence[str],
        on_restart: Callable[[], None],
        worker: str = DEVICE_WORKER,
        arguments: Mapping[str, str] | None = None,
    ) -> None:
        roles = [Role(worker, arguments or {}, _visible(device)) for device in devices]
        self._crew = Crew("device worker", roles, on_restart)

    async def start(self) -> tuple[ModelInfo, ...]:
        """Load the models in each process."""
        hello = (await self._crew.start())[0]
        for name, reason in hello["failures"].items():
            logger.error("The model %s cannot be used: %s.", name, reason)
        return wire.decode_models(hello["models"])

    async def run(self, task: Task, report: Report, deadline_s: float) -> Outcome:
        """Hand the task to the next idle process."""
        images = (task.fixed, task.moving)
        head = {
            "model": task.model,
            "options": dict(task.options),
            "headers": [image.header for image in images],
        }
        voxels = [image.voxels for image in images]
        answer = await self._crew.ask(head, voxels, report, deadline_s)
        facts = answer.head
        return Outcome(bytes(answer.parcels[0].view), facts["seconds"], facts["device_memory"])

    @property
    def ready(self) -> int:
        """How many processes are warm."""
        return self._crew.ready

    def close(self) -> None:
        """Kill the processes."""
        self._crew.close()


def _visible(device: str) -> dict[str, str]:
    """The environment in which a process sees its device only."""
    if device == "auto":
        return {}
    return {"CUDA_VISIBLE_DEVICES": "" if device == "cpu" else device}
