"""A line before something that does few things at a time: bounded, and fair to every client.

Who has used least goes first (start-time fair queuing: P. Goyal, H. Vin, H. Cheng, SIGCOMM 1996): a
client that orders much waits behind its own orders, not before those of others, and small work goes
before large. When the line is full, those may still join who have nothing in it, up to a bound of
their own; and a quarter of it is never filled by clients who are in it already.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable

from retreg_server.serving.errors import ApiError

KEPT_SHARE = 4  # one place in so many is for clients with nothing in the line
SHORTEST_RETRY_S, LONGEST_RETRY_S = 1, 60
NEWEST_SHARE = 0.2  # of the newest duration in their running mean
LARGEST_DEBT = 4.0  # works of the size 1; else who was slow once would wait for ever
REMEMBERED = 1000  # clients


class Turn:
    """One place in a line. client: whose it is. size: of the work. is_ready: it could begin.

    begun_s: when it was called; expected_s: what it was expected to take then.
    """

    def __init__(self, line: FairLine, client: str, size: float, is_ready: bool) -> None:
        self._line = line
        self.client, self.size, self.is_ready = client, size, is_ready
        self.begun_s = self.expected_s = 0.0
        self.call = asyncio.get_running_loop().create_future()

    def prepare(self) -> None:
        """The work could begin from now on, for one that only kept a place."""
        self.is_ready = True
        self._line.call_next()

    async def come(self) -> None:
        """Return when it is this one's turn."""
        await asyncio.shield(self.call)

    def leave(self) -> None:
        """Make way: the work has ended, or is not wanted any more."""
        self._line.leave(self)


class FairLine:
    """The line; belongs to the event loop.

    places: how much is worked on at the same time. length: how much may wait. guests: how many
    clients without anything in the line may join it when it is full. share: what part of the work
    a client gets, against 1 for others. what: of which there are too many, in a sentence.
    """

    def __init__(
        self,
        places: Callable[[], int],
        length: int,
        guests: int,
        share: Callable[[str], float] = lambda _: 1.0,
        what: str = "registrations are waiting",
    ) -> None:
        self._places, self._length, self._guests = places, length, guests
        self._share, self._what = share, what
        self._waiting: list[Turn] = []
        self._working: set[Turn] = set()
        self._clients: Counter[str] = Counter()
        self._used_s: dict[str, float] = {}
        self._virtual_s = 0.0
        self._unit_s = 1.0  # that work of the size 1 takes

    def check(self, client: str, status: int = 429) -> None:
        """Raise ApiError when there is no place for another one of that client."""
        total = len(self._waiting) + len(self._working)
        bound = max(1, self._places()) + self._length
        bound += -(self._length // KEPT_SHARE) if self._clients[client] else self._guests
        if total >= bound:
            raise self.refusal(status)

    def refusal(self, status: int = 429) -> ApiError:
        """What is told to whom there is no place for."""
        retry = {"Retry-After": str(self.retry_after_s())}
        sentence = f"{len(self._waiting)} {self._what} already; try again later."
        return ApiError(status, "busy", sentence, retry)

    def enter(
        self, client: str, status: int = 429, size: float = 1.0, is_ready: bool = True
    ) -> Turn:
        """Take a place; size: of the work, against others. Raises ApiError as check does.

        is_ready: whether the work could begin; see Turn.prepare.
        """
        self.check(client, status)
        if not self._clients[client]:
            self._used_s[client] = max(self._used_s.get(client, 0.0), self._virtual_s)
        self._clients[client] += 1
        turn = Turn(self, client, size, is_ready)
        self._waiting.append(turn)
        self.call_next()
        return turn

    def leave(self, turn: Turn) -> None:
        """See Turn.leave."""
        if turn in self._working:
            self._working.remove(turn)
            seconds = time.monotonic() - turn.begun_s
            self._used_s[turn.client] += seconds / self._share(turn.client) - turn.expected_s
            self._unit_s += NEWEST_SHARE * (seconds / turn.size - self._unit_s)
        elif turn in self._waiting:
            self._waiting.remove(turn)
        else:
            return
        self._clients[turn.client] -= 1
        self._forget()
        self.call_next()

    def retry_after_s(self) -> int:
        """Whole seconds after which there will be a place, as far as the last ones tell."""
        sizes = 1.0 + sum(turn.size for turn in self._waiting)
        seconds = math.ceil(sizes * self._unit_s / max(1, self._places()))
        return min(max(SHORTEST_RETRY_S, seconds), LONGEST_RETRY_S)

    def call_next(self) -> None:
        """Call who comes next, while there is something free and somebody ready."""
        while len(self._working) < max(1, self._places()):
            ready = [each for each in self._waiting if each.is_ready]
            if not ready:
                return
            turn = min(ready, key=lambda each: self._debt_s(each.client) + self._cost_s(each))
            self._waiting.remove(turn)
            self._working.add(turn)
            turn.begun_s, turn.expected_s = time.monotonic(), self._cost_s(turn)
            self._used_s[turn.client] = used_s = self._virtual_s + self._debt_s(turn.client)
            self._virtual_s = max(self._virtual_s, used_s)
            self._used_s[turn.client] += turn.expected_s  # corrected when it leaves
            if not turn.call.done():
                turn.call.set_result(None)

    def _debt_s(self, client: str) -> float:
        """What a client has used more than it had to, or less."""
        return min(self._used_s[client] - self._virtual_s, LARGEST_DEBT * self._unit_s)

    def _cost_s(self, turn: Turn) -> float:
        """What its client will have used when the work is done."""
        return turn.size * self._unit_s / self._share(turn.client)

    def _forget(self) -> None:
        """Clients who have had no more than others need not be remembered."""
        self._clients = +self._clients
        if len(self._used_s) > REMEMBERED:
            self._used_s = {
                client: used
                for client, used in self._used_s.items()
                if self._clients[client] or used > self._virtual_s
            }
