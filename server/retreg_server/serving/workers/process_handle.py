"""The outside of a child process: ask it, cancel it, notice that it died, kill it."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any

from retreg import wire
from retreg.progress import Progress, no_progress
from retreg_server.serving.workers import messages, process_main
from retreg_server.serving.workers.messages import Head, Message, SharedBuffer

CANCEL_GRACE_S = 5.0  # for a child that is asked to stop, before it is killed


class ProcessDied(Exception):
    """The process ended, or was killed, before it answered."""


class ChildNeverHeard(ProcessDied):
    """The process had ended before the request reached it."""


class ProcessFailed(Exception):
    """The work stopped with an exception that nobody foresaw; its text holds no data."""


@dataclass(frozen=True, eq=False)
class ProcessSpec:
    """What a child is started for: see process_main.main."""

    entry: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int | None = None


class ProcessHandle:
    """One process, started once and asked one thing at a time; belongs to the event loop.

    on_end: called on the loop when the process has ended, for whatever reason. has_ended: whether
    it has, or has been killed.
    """

    def __init__(self, spec: ProcessSpec, on_end: Callable[[ProcessHandle], None]) -> None:
        self._spec = spec
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[Message | None] = asyncio.Queue()
        self._sending = threading.Lock()
        self._process: BaseProcess | None = None
        self.has_ended = False

    async def start(self) -> Head:
        """Start the process and wait until it is warm; returns its hello. Raises ProcessDied."""
        await asyncio.to_thread(self._spawn)
        return (await self._next()).head

    async def ask(
        self, head: Head, enclosed: Sequence[SharedBuffer] = (), progress: Progress = no_progress
    ) -> Message:
        """The answer to a request; report hears of the progress.

        Raises the RetRegError that the child raised, ProcessFailed, ProcessDied, or ChildNeverHeard
        when that happened before the work began. When the call is cancelled the child is told to
        stop, and killed when it does not.
        """
        sending = asyncio.ensure_future(asyncio.to_thread(self._send, head, enclosed))
        try:
            await self._hand_over(sending)
            return await self._answer(progress)
        except asyncio.CancelledError:
            await self._hush(sending)
            raise

    def kill(self) -> None:
        """End the process at once."""
        self.has_ended = True
        if self._process is not None:
            with suppress(ValueError):
                self._process.kill()

    async def _hand_over(self, sending: asyncio.Future[None]) -> None:
        """Return when the child has begun."""
        try:
            await asyncio.shield(sending)
            await self._next()
        except (OSError, ProcessDied):
            raise ChildNeverHeard from None

    async def _answer(self, progress: Progress) -> Message:
        while True:
            message = await self._next()
            head = message.head
            match head["kind"]:
                case "progress":
                    progress(head["stage"], head["fraction"])
                case "done":
                    return message
                case "error":
                    raise wire.raised_error(500, head)
                case _:
                    raise ProcessFailed(head["text"])

    async def _next(self) -> Message:
        message = await self._inbox.get()
        if message is None:
            self._inbox.put_nowait(None)  # for the next one who asks
            raise ProcessDied
        return message

    async def _hush(self, sending: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(CANCEL_GRACE_S):
                await sending
                await asyncio.to_thread(self._send, {"kind": "cancel"}, ())
                while (await self._next()).head["kind"] in ("begun", "progress"):
                    pass
        except (TimeoutError, OSError, ProcessDied, asyncio.CancelledError):
            self.kill()

    def _send(self, head: Head, enclosed: Sequence[SharedBuffer]) -> None:
        with self._sending:
            messages.send(self._connection, {"kind": "ask"} | head, enclosed)

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        spec = self._spec
        process = context.Process(
            target=process_main.main,
            args=(theirs, spec.entry, spec.arguments, spec.environment, spec.memory_bytes),
            daemon=True,
        )
        process.start()
        theirs.close()
        self._process = process
        if self.has_ended:  # while it was starting
            process.kill()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Runs on a thread of its own until the process ends."""
        with suppress(EOFError, OSError):
            while True:
                self._tell(self._inbox.put_nowait, messages.receive(self._connection))
        assert self._process is not None
        self._process.kill()  # it may have closed the pipe and live on
        self._process.join()
        self._tell(self._end)

    def _tell(self, tell: Callable[..., None], *what: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(tell, *what)

    def _end(self) -> None:
        self.has_ended = True
        self._inbox.put_nowait(None)
        self._connection.close()
        self._on_end(self)
