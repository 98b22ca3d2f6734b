"""What runs in each actor of a Ray cluster: a device worker that tells its progress as a stream."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Event

import numpy as np

from retreg.errors import Cancelled
from retreg_server.serving.workers.messages import Head, Message, SharedBuffer
from retreg_server.serving.workers.process_handle import CANCEL_GRACE_S
from retreg_server.serving.workers.process_main import CANCELLED, answered, made


class Replica:
    """The inside of the cluster: what a ModelWorker is in its process, this is in an actor."""

    def __init__(self, entry: str, arguments: Mapping[str, str]) -> None:
        self._handler = made(entry, arguments)
        self._hello = self._handler.hello()
        self._thread = ThreadPoolExecutor(1, "device")

    async def hello(self) -> Head:
        """As Handler.hello, which was called when the replica started."""
        return self._hello

    async def register(self, head: Head, *voxels: np.ndarray) -> AsyncIterator[Head]:
        """Progress, then the head of the answer with its buffer as "result".

        When the caller cancels, the work is told to stop, and the replica ends when it does not.
        """
        told: asyncio.Queue[Head | None] = asyncio.Queue()
        tell = asyncio.get_running_loop().call_soon_threadsafe
        unwanted = Event()

        def report(stage: str, fraction: float) -> None:
            if unwanted.is_set():
                raise Cancelled(CANCELLED)
            tell(told.put_nowait, {"kind": "progress", "stage": stage, "fraction": fraction})

        request = Message(head, tuple(SharedBuffer.around(each.data.cast("B")) for each in voxels))
        work = self._thread.submit(answered, self._handler, request, report)
        work.add_done_callback(lambda _: tell(told.put_nowait, None))
        try:
            yield {"kind": "begun"}
            while (message := await told.get()) is not None:
                yield message
            answer = work.result()
            yield {**answer.head, "result": b"".join(bytes(each.view) for each in answer.buffers)}
        finally:
            unwanted.set()
            _end_unless_stopped(work)


def _end_unless_stopped(work: Future[Message]) -> None:
    """End this process when the work goes on for too long; Ray starts another one."""
    with suppress(Exception):
        work.exception(CANCEL_GRACE_S)
    if not work.done():
        os._exit(1)
