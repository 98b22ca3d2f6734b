"""The store that forgets."""

from __future__ import annotations

from retreg_server.serving.shelf import Shelf


class Clock:
    """Time that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_oldest_leaves_when_it_is_full():
    shelf: Shelf[str] = Shelf(10, 100)
    for key in "abc":
        shelf.put(key, key.upper(), 4)
    assert [shelf.get(key) for key in "abc"] == [None, "B", "C"]


def test_reading_keeps_a_value():
    shelf: Shelf[str] = Shelf(10, 100)
    shelf.put("a", "A", 4)
    shelf.put("b", "B", 4)
    shelf.get("a")
    shelf.put("c", "C", 4)
    assert [shelf.get(key) for key in "abc"] == ["A", None, "C"]


def test_values_leave_after_their_time():
    clock = Clock()
    shelf: Shelf[str] = Shelf(10, 100, clock)
    shelf.put("a", "A", 1)
    clock.now = 99
    shelf.get("a")
    shelf.put("b", "B", 1)
    clock.now = 198
    assert shelf.get("a") == "A"
    clock.now = 200
    assert shelf.get("b") is None
    assert shelf.get("a") == "A"


def test_a_value_larger_than_the_shelf_stays_until_the_next_one():
    shelf: Shelf[str] = Shelf(10, 100)
    shelf.put("big", "B", 50)
    assert shelf.get("big") == "B"
    shelf.put("a", "A", 1)
    assert shelf.get("big") is None


def test_replacing_a_value_counts_it_once():
    shelf: Shelf[str] = Shelf(10, 100)
    for _ in range(5):
        shelf.put("a", "A", 6)
    shelf.put("b", "B", 4)
    assert (shelf.get("a"), shelf.get("b")) == ("A", "B")
