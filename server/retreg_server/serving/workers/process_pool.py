"""A pool of child processes: asks the next one that is idle, and replaces those that die."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from retreg.progress import Progress, no_progress
from retreg_server.serving.workers.messages import Head, Message, SharedBuffer
from retreg_server.serving.workers.process_handle import (
    ChildNeverHeard,
    ProcessDied,
    ProcessHandle,
    ProcessSpec,
)

logger = logging.getLogger(__name__)

LONGEST_PAUSE_S = 30.0
ATTEMPTS = 3  # to hand a request to a process, before the work on it has begun


def _nothing() -> None:
    """Nobody counts the restarts."""


class ProcessPool:
    """One process for each spec; belongs to the event loop.

    name: what the log calls a process. on_restart: called when one has died and is replaced.
    """

    def __init__(
        self, name: str, specs: Sequence[ProcessSpec], on_restart: Callable[[], None] = _nothing
    ) -> None:
        self._name = name
        self._specs = specs
        self._on_restart = on_restart
        self._children: dict[ProcessSpec, ProcessHandle] = {}
        self._idle: asyncio.Queue[ProcessHandle] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._starting: asyncio.Future[list[Head]] | None = None

    @property
    def ready(self) -> int:
        """How many processes are warm."""
        return sum(not child.has_ended for child in self._children.values())

    async def start(self) -> list[Head]:
        """Start all processes; their hellos. Tries again while one does not start."""
        if self._starting is None:
            self._starting = asyncio.gather(*(self._staff(spec) for spec in self._specs))
        return await asyncio.shield(self._starting)

    def grow(self, specs: Sequence[ProcessSpec]) -> None:
        """Start further processes; each takes its share of the work when it is warm."""
        for spec in specs:
            self._spawn(self._staff(spec))

    async def ask(
        self,
        head: Head,
        enclosed: Sequence[SharedBuffer] = (),
        progress: Progress = no_progress,
        deadline_s: float | None = None,
    ) -> Message:
        """The answer of the next idle process; report is called first when it takes the request.

        Raises as ProcessHandle.ask, and TimeoutError when the work takes longer than deadline_s.
        """
        await self.start()
        for _ in range(ATTEMPTS):
            child = await self._next_idle()
            try:
                progress("starting", 0.0)
                async with asyncio.timeout(deadline_s):
                    return await child.ask(head, enclosed, progress)
            except ChildNeverHeard:
                child.kill()  # it died in idleness; the next one may have the request
            finally:
                if not child.has_ended:
                    self._idle.put_nowait(child)
        raise ProcessDied

    def close(self) -> None:
        """Kill all processes."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        for child in self._children.values():
            child.kill()

    async def _next_idle(self) -> ProcessHandle:
        while True:
            child = await self._idle.get()
            if not child.has_ended:
                return child

    async def _staff(self, spec: ProcessSpec) -> Head:
        """Start a process for the spec, at longer and longer intervals until it succeeds."""
        pause_s = 0.5
        while True:
            child = ProcessHandle(spec, lambda ended: self._replace(spec, ended))
            try:
                hello = await child.start()
            except asyncio.CancelledError:
                child.kill()
                raise
            except ProcessDied:
                logger.error("A %s could not be started; trying again.", self._name)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            self._children[spec] = child
            self._idle.put_nowait(child)
            return hello

    def _replace(self, spec: ProcessSpec, ended: ProcessHandle) -> None:
        if self._closing or self._children.get(spec) is not ended:
            return
        logger.error("A %s has died and is replaced.", self._name)
        self._on_restart()
        self._spawn(self._staff(spec))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
