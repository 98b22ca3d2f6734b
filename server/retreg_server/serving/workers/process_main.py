"""The inside of a child process: it answers one request after the other until its parent is gone.

A handler is an object with hello(), which tells the parent what it needs to know once all is
warm, and answer(message, report), which does the work and raises what goes wrong.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from retreg import wire
from retreg.errors import Cancelled, RetRegError
from retreg.progress import Progress
from retreg_server.serving.errors import describe
from retreg_server.serving.workers import messages
from retreg_server.serving.workers.messages import Head, Message

NICENESS = 5  # whoever waits for an answer goes before whoever computes, where cores are scarce
OOM_SCORE = 500  # of 1000; the server has none
SMALLEST_STEP = 0.01  # progress below this is not worth a message
CANCELLED = "The registration was cancelled on request."


class Handler(Protocol):
    """What a child does."""

    def hello(self) -> Head:
        """What the parent needs to know; called once, before the first request."""
        ...

    def answer(self, request: Message, progress: Progress) -> Message:
        """The answer to a request. Raises RetRegError for whatever the user should be told."""
        ...


def main(
    connection: Connection,
    entry: str,
    arguments: Mapping[str, Any],
    environment: Mapping[str, str],
    memory_bytes: int | None,
) -> None:
    """Run the handler that entry (module:callable) makes of the arguments, until the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.update(environment)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    offer_to_the_kernel()
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    handler = made(entry, arguments)
    hello = handler.hello()
    if memory_bytes is not None:
        limit_memory(memory_bytes)
    try:
        messages.send(connection, {"kind": "hello", **hello})
        while True:
            request = messages.receive(connection)
            if request.head["kind"] != "cancel":  # one that came too late
                messages.send(connection, {"kind": "begun"})
                answer = answered(handler, request, _reporter(connection))
                messages.send(connection, answer.head, answer.buffers)
    except (EOFError, OSError):
        return


def offer_to_the_kernel() -> None:
    """Where the memory of the machine runs out, Linux ends this process and not the server."""
    with suppress(OSError):  # there is no such file elsewhere
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def limit_memory(more_bytes: int) -> None:
    """Let this process take so much more memory than it has, where the system can hold it to that.

    Beyond the limit allocations fail with MemoryError.
    """
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    except (ImportError, OSError):
        return
    limit = pages * resource.getpagesize() + more_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _end_with_the_parent() -> None:
    """A parent that was killed takes its children with it, whatever they compute."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def made(entry: str, arguments: Mapping[str, Any]) -> Handler:
    """The handler that entry (module:callable) makes of the arguments."""
    module, name = entry.split(":")
    handler: Handler = getattr(import_module(module), name)(**arguments)
    return handler


def answered(handler: Handler, request: Message, progress: Progress) -> Message:
    """What a handler answers, or the exception that it raised, as a message; raises nothing."""
    try:
        answer = handler.answer(request, progress)
        return Message({"kind": "done", **answer.head}, answer.buffers)
    except RetRegError as error:
        return Message({"kind": "error", **wire.encode_error(wire.error_slug(error), str(error))})
    except Exception as error:
        return Message({"kind": "bug", "text": describe(error)})


def _reporter(connection: Connection) -> Progress:
    """Tells the parent how far the work is, and hears from it when the work is unwanted."""
    last: tuple[str, float] = ("", 0.0)

    def progress(stage: str, fraction: float) -> None:
        nonlocal last
        if connection.poll(0):
            messages.receive(connection)  # nothing but a cancellation comes now
            raise Cancelled(CANCELLED)
        if stage != last[0] or abs(fraction - last[1]) >= SMALLEST_STEP:
            last = stage, fraction
            messages.send(connection, {"kind": "progress", "stage": stage, "fraction": fraction})

    return progress
