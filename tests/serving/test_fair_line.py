"""Lines are short, bounded and fair: who asks for little is served as if the others did not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import requests
from test_memory_account import FromAddress, put, volume

from retreg_server.serving.access.addresses import site
from retreg_server.serving.access.caller import Caller
from retreg_server.serving.errors import ApiError
from retreg_server.serving.fair_line import FairLine, Turn
from retreg_server.serving.settings import Settings

FRESH = Settings(reuse_results=False)


class Clock:
    """A clock that goes on when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("retreg_server.serving.fair_line.time.monotonic", clock)
    return clock


def line(**changed) -> FairLine:
    return FairLine(**{"places": lambda: 1, "length": 100, "guests": 10, **changed})


def served(clock: Clock, turns: list[Turn], seconds: float = 1.0) -> Iterator[Turn]:
    """Each in the order in which it is called; working takes so many seconds of the size 1."""
    left = set(turns)
    while left:
        called = next(turn for turn in left if turn.call.done())
        clock.now += seconds * called.size
        yield called
        left.remove(called)
        called.leave()


def run(work) -> None:
    async def inside_a_loop() -> None:
        work()

    asyncio.run(inside_a_loop())


def test_clients_take_turns_however_much_one_of_them_orders(clock):
    def work() -> None:
        queue = line()
        turns = [queue.enter("greedy") for _ in range(6)]
        turns += [queue.enter("modest") for _ in range(2)]
        order = [turn.client for turn in served(clock, turns)]
        assert order.index("modest") <= 1
        assert order[:4].count("modest") == 2

    run(work)


def test_small_work_goes_before_large(clock):
    def work() -> None:
        queue = line()
        turns = [queue.enter(f"client {n}", size=size) for n, size in enumerate((5, 9, 7, 1))]
        assert [turn.size for turn in served(clock, turns)] == [5, 1, 7, 9]

    run(work)


def test_who_has_used_much_waits_longer_than_who_has_used_little(clock):
    def work() -> None:
        queue = line()
        turns = [queue.enter("long", size=10), queue.enter("short")]
        list(served(clock, turns))
        first, *others = queue.enter("x"), queue.enter("long"), queue.enter("short")
        assert [turn.client for turn in served(clock, [first, *others])][1:] == ["short", "long"]

    run(work)


def test_idleness_earns_nothing(clock):
    def work() -> None:
        queue = line()
        list(served(clock, [queue.enter("busy") for _ in range(50)]))
        turns = [queue.enter(name) for _ in range(3) for name in ("busy", "newcomer")]
        order = [turn.client for turn in served(clock, turns)]
        assert order[:4].count("newcomer") <= 3

    run(work)


def test_a_client_with_priority_gets_its_share(clock):
    def work() -> None:
        queue = line(share=lambda client: 4.0 if client == "urgent" else 1.0)
        turns = [queue.enter(name) for _ in range(8) for name in ("other", "urgent")]
        order = [turn.client for turn in served(clock, turns)]
        assert 6 <= order[:10].count("urgent") <= 8

    run(work)


def test_a_full_line_still_lets_in_who_has_nothing_in_it():
    def work() -> None:
        queue = line(length=8, guests=2)
        turns = [queue.enter("greedy") for _ in range(7)]  # one works; a quarter of 8 is kept
        with pytest.raises(ApiError, match="6 registrations are waiting already") as refusal:
            queue.enter("greedy")
        assert refusal.value.status == 429
        for number in range(4):
            turns.append(queue.enter(f"client {number}"))
        with pytest.raises(ApiError):
            queue.enter("client 4")
        assert [turn.call.done() for turn in turns].count(True) == 1
        for turn in reversed(turns):
            turn.leave()
            turn.leave()  # whoever leaves twice has left
        assert queue.enter("greedy").call.done()

    run(work)


def test_nobody_starves_who_came_before_it_was_known_how_long_work_takes(clock):
    def work() -> None:
        queue, calls = line(), []
        early = [queue.enter(f"early {n}") for n in range(5)]
        waiting = set(early)
        for number in range(40):  # work turns out to be short, and others come all the time
            called = next(turn for turn in waiting if turn.call.done())
            clock.now += 0.05
            calls.append(called)
            called.leave()
            waiting.remove(called)
            waiting.add(queue.enter(f"later {number % 5}"))
        assert set(early) <= set(calls[:15])

    run(work)


def test_who_was_slow_once_does_not_wait_for_ever(clock):
    def work() -> None:
        queue = line()
        slow = queue.enter("slow")
        clock.now += 60
        slow.leave()
        list(served(clock, [queue.enter("other") for _ in range(40)], seconds=0.05))
        waiting = {queue.enter("slow"), *(queue.enter(f"other {n}") for n in range(3))}
        for _ in range(25):
            called = next(turn for turn in waiting if turn.call.done())
            if called.client == "slow":
                return
            clock.now += 0.05
            called.leave()
            waiting.remove(called)
            waiting.add(queue.enter(called.client))
        pytest.fail("it still waits")

    run(work)


def test_who_only_keeps_a_place_is_not_called_before_it_is_ready():
    def work() -> None:
        queue = line()
        early, late = queue.enter("a", is_ready=False), queue.enter("b")
        assert (early.call.done(), late.call.done()) == (False, True)
        early.prepare()
        late.leave()
        assert early.call.done()

    run(work)


def test_when_to_come_again_is_told_by_what_waits_and_how_long_it_takes(clock):
    def work() -> None:
        places = [1]
        queue = line(places=lambda: places[0])
        list(served(clock, [queue.enter("a") for _ in range(40)], seconds=6.0))
        places[0] = 2
        assert queue.retry_after_s() in (3, 4)  # half of 6 s, on two places
        turns = [queue.enter("a") for _ in range(12)]
        assert 30 <= queue.retry_after_s() <= 36
        for turn in turns:
            turn.leave()

    run(work)


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:0:1", "2001:db8::/64"),
        ("testclient", "testclient"),
    ],
)
def test_an_address_stands_for_a_client(address, client):
    assert site(address) == client


@pytest.mark.parametrize(
    ("caller", "line"),
    [
        (Caller(address="192.0.2.7"), "192.0.2.7"),
        (Caller("token", address="192.0.2.7"), "192.0.2.7"),  # one token for all
        (Caller("alice", "name alice", address="192.0.2.7"), "alice"),
        (Caller("alice", "group neuro", address="192.0.2.7"), "alice"),
        (Caller("token", address="2001:db8::1"), "2001:db8::/64"),
    ],
)
def test_a_line_knows_a_client_by_a_token_of_its_own_or_by_its_address(caller, line):
    assert caller.line == line


def test_a_polite_client_is_served_beside_a_greedy_crowd(start_server):
    """Thinned: benchmarks/fairness.py has 40 of them for a minute."""
    with start_server(replace(FRESH, queue_size=4)) as server:
        address = put(server, volume(8)).json()["sha256"]
        stop, waits = threading.Event(), {"greedy": [], "polite": []}

        def order(session: requests.Session, kind: str) -> bool:
            images = {"fixed": address, "moving": address}
            message = {**images, "model": "auto-volume", "options": {"steps": 1}}
            begun = time.monotonic()
            url = f"{server.url}/v1/registrations"
            answer = session.post(url, json=message, timeout=30)
            if answer.status_code != 202:
                assert answer.status_code == 429
                return False
            with session.get(f"{url}/{answer.json()['id']}/events", timeout=60) as events:
                assert b'"done"' in events.content
            waits[kind].append(time.monotonic() - begun)
            return True

        def be_greedy(number: int) -> None:
            with requests.Session() as session:
                session.mount("http://", FromAddress(f"127.0.0.{10 + number // 2}"))
                while not stop.is_set():
                    order(session, "greedy")

        crowd = [threading.Thread(target=be_greedy, args=(number,)) for number in range(12)]
        for each in crowd:
            each.start()
        with requests.Session() as polite:
            polite.mount("http://", FromAddress("127.0.0.2"))
            accepted = [order(polite, "polite") for _ in range(6) if not time.sleep(0.1)]
        stop.set()
        for each in crowd:
            each.join()
    assert all(accepted)
    assert len(waits["greedy"]) > 6
    assert np.mean(waits["polite"]) <= 2 * np.mean(waits["greedy"])
