"""A process that makes images of what strangers sent: in turn, and with room for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from retreg.errors import TooLargeError
from retreg.progress import Progress, no_progress
from retreg_server.serving.access.caller import caller
from retreg_server.serving.fair_line import FairLine
from retreg_server.serving.memory_account import Account
from retreg_server.serving.workers.messages import Head, Message, SharedBuffer
from retreg_server.serving.workers.process_pool import ProcessPool

SIZE_UNIT_BYTES = 4 << 20  # of what is sent: as much again takes about as long as to begin


@dataclass(frozen=True)
class Room:
    """Bytes that an answer may take: at most, and what must be there before the work begins."""

    most: int
    least: int


@dataclass(frozen=True, eq=False)
class CountedPool:
    """A pool of one process, the line before it, and the account of what it makes."""

    pool: ProcessPool
    line: FairLine
    account: Account

    @asynccontextmanager
    async def turn(self, nbytes: int, patience_s: float) -> AsyncIterator[None]:
        """The process is free for what is asked within this block; nbytes: of all that is sent.

        What belongs together is asked in one turn: so nobody holds an image while waiting for
        room for the other. Raises ApiError 503 when too many wait, or the turn does not come.
        """
        turn = self.line.enter(caller().line, 503, 1.0 + nbytes / SIZE_UNIT_BYTES)
        try:
            try:
                async with asyncio.timeout(patience_s):
                    await turn.come()
            except TimeoutError:
                raise self.line.refusal(503) from None
            yield
        finally:
            turn.leave()

    async def ask(
        self,
        head: Head,
        enclosed: Sequence[SharedBuffer],
        room: Room,
        deadline_s: float,
        progress: Progress = no_progress,
    ) -> Message:
        """The answer to a request, which hears as most_bytes how large that may be.

        Raises as ProcessPool.ask does, and ApiError 503 when there is too little room.
        """
        try:
            return await self._counted(head, enclosed, room, deadline_s, progress)
        except TooLargeError:
            if room.least == room.most:
                raise
        whole = Room(room.most, room.most)  # what is kept makes way
        return await self._counted(head, enclosed, whole, deadline_s, progress)

    async def _counted(
        self,
        head: Head,
        enclosed: Sequence[SharedBuffer],
        room: Room,
        deadline_s: float,
        progress: Progress,
    ) -> Message:
        claim = self.account.claim_up_to(room.most, room.least)
        head = {**head, "most_bytes": claim.nbytes}
        answer = await self.pool.ask(head, enclosed, progress, deadline_s)
        for buffer in answer.buffers:
            claim.resize(len(buffer))
            buffer.claim = claim
        return answer
