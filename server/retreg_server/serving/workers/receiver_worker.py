"""What the process for C-STORE does: it listens, and hands over what arrives, one thing at a time.

It has a memory limit, its own threads and descriptors, and can be killed at any time. What it hands
over is acknowledged to the sender when the server says that it is kept.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from retreg.progress import Progress
from retreg_server.dicom.peers import Sender, sender_from
from retreg_server.serving.workers.messages import Message, SharedBuffer

if TYPE_CHECKING:
    from retreg_server.dicom.storage_scp import Arrived

LOOK_S = 0.05  # between looks at whether the server still wants an answer
TALE_LENGTH = 1000  # of what is told; beyond that, a flood of refusals is forgotten


@dataclass(eq=False)
class _Pending:
    """An object that waits to be kept. status: what its sender is told; set with decided."""

    arrived: Arrived
    status: int = 0
    decided: Event = field(default_factory=Event)


class ReceiverWorker:
    """The handler of the process for C-STORE: see process_main.Handler.

    address: host and port. senders: name, title and address of each. bounds: object_bytes, object_s
    and idle_s of storage_scp.Door.
    """

    def __init__(
        self,
        address: Sequence[Any],
        title: str,
        senders: Mapping[str, Mapping[str, str]],
        bounds: Mapping[str, Any],
        scratch: str,
    ) -> None:
        self._address, self._title = (str(address[0]), int(address[1])), title
        self._senders: list[Sender] = [sender_from(name, each) for name, each in senders.items()]
        self._bounds, self._scratch = dict(bounds), Path(scratch)
        self._objects: queue.Queue[_Pending | tuple[str, ...]] = queue.Queue()
        self._handed_over: _Pending | None = None

    def hello(self) -> dict[str, Any]:
        """Import what takes a while."""
        import retreg_server.dicom.storage_scp  # noqa: F401
        from retreg_server.dicom.quiet import keep_libraries_quiet

        keep_libraries_quiet()
        return {}

    def answer(self, request: Message, progress: Progress) -> Message:
        """Do the task that the head names."""
        if request.head["task"] == "listen":
            return self._listen()
        return self._next(request.head["status"], request.head["wait_s"], progress)

    def _listen(self) -> Message:
        from retreg_server.dicom.storage_scp import Door, listen

        door = Door(
            self._title, self._senders, self._take, self._tell, scratch=self._scratch,
            **self._bounds,
        )  # fmt: skip
        return Message({"port": listen(self._address, door)})

    def _next(self, status: int, wait_s: float, progress: Progress) -> Message:
        """What has happened next, after at most wait_s; status: of what was handed over before."""
        if self._handed_over is not None:
            self._handed_over.status = status
            self._handed_over.decided.set()
            self._handed_over = None
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            progress("listening", 0.0)
            with suppress(queue.Empty):
                found = self._objects.get(timeout=LOOK_S)
                if isinstance(found, tuple):
                    return Message({"event": found[0], "words": list(found[1:])})
                self._handed_over = found
                return _message(found.arrived)
        return Message({"event": "nothing"})

    def _take(self, arrived: Arrived) -> int:
        """Runs on the thread of an association."""
        pending = _Pending(arrived)
        self._objects.put(pending)
        pending.decided.wait()
        return pending.status

    def _tell(self, event: str, *words: str) -> None:
        if event == "ended" or self._objects.qsize() < TALE_LENGTH:
            self._objects.put((event, *words))


def _message(arrived: Arrived) -> Message:
    head = {
        "event": "arrived",
        "association": arrived.association,
        "sender": arrived.sender,
        "study": arrived.study,
        "instance": arrived.instance,
        "facts": {**arrived.facts, "taken": list(arrived.facts["taken"])},
    }
    return Message(head, (SharedBuffer.of(arrived.content),))
