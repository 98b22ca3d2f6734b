"""The store that forgets."""

from __future__ import annotations

from retreg_server.serving.storage.memory_cache import MemoryCache


class Clock:
    """Time that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_oldest_leaves_when_it_is_full():
    cache: MemoryCache[str] = MemoryCache(10, 100)
    for key in "abc":
        cache.put(key, key.upper(), 4)
    assert [cache.get(key) for key in "abc"] == [None, "B", "C"]


def test_reading_keeps_a_value():
    cache: MemoryCache[str] = MemoryCache(10, 100)
    cache.put("a", "A", 4)
    cache.put("b", "B", 4)
    cache.get("a")
    cache.put("c", "C", 4)
    assert [cache.get(key) for key in "abc"] == ["A", None, "C"]


def test_values_leave_after_their_time():
    clock = Clock()
    cache: MemoryCache[str] = MemoryCache(10, 100, clock)
    cache.put("a", "A", 1)
    clock.now = 99
    cache.get("a")
    cache.put("b", "B", 1)
    clock.now = 198
    assert cache.get("a") == "A"
    clock.now = 200
    assert cache.get("b") is None
    assert cache.get("a") == "A"


def test_a_value_larger_than_the_cache_stays_until_the_next_one():
    cache: MemoryCache[str] = MemoryCache(10, 100)
    cache.put("big", "B", 50)
    assert cache.get("big") == "B"
    cache.put("a", "A", 1)
    assert cache.get("big") is None


def test_replacing_a_value_counts_it_once():
    cache: MemoryCache[str] = MemoryCache(10, 100)
    for _ in range(5):
        cache.put("a", "A", 6)
    cache.put("b", "B", 4)
    assert (cache.get("a"), cache.get("b")) == ("A", "B")
