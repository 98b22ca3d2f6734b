"""Cancelling is quick at every stage, and frees the server."""

from __future__ import annotations

import time
from typing import Any

import pytest
from relay import relay_to
from watching import Heard, Untouched, a_volume, poll_until

from retreg.errors import Cancelled

IDLE_S = 1.0


def cancelled_within(job: Any, heard: Heard) -> float:
    begun = time.monotonic()
    job.cancel()
    poll_until(job, lambda: job.ended)
    seconds = time.monotonic() - begun
    assert heard.ends == [("cancelled", None)]
    return seconds


def test_cancel_during_the_upload_is_quick_and_ends_the_sending(new_logic, server, scene):
    big = a_volume(scene, "big", 5, 128), a_volume(scene, "big too", 6, 128)
    heard = Heard()
    with relay_to(server.url) as relay:
        relay.bytes_per_s = 2e6
        job = new_logic(relay.url).register_async(*big, **heard.callbacks)
        poll_until(job, lambda: relay.sent > 500_000)
        assert cancelled_within(job, heard) < IDLE_S
        before = server.number(r'retreg_request_seconds_count\{method="POST".*\}')
        time.sleep(1.0)  # what lies in the sockets may still arrive
        relay.bytes_per_s = float("inf")
        time.sleep(0.5)
        assert relay.sent < 8e6
    assert server.number(r'retreg_request_seconds_count\{method="POST".*\}') == before
    assert heard.ends == [("cancelled", None)]


def test_cancel_in_the_queue_is_quick_and_leaves_the_queue(logic, server, nodes, scene):
    first, second = Heard(), Heard()
    other = a_volume(scene, "other", 3)
    busy = logic.register_async(*nodes, steps=500, **first.callbacks)
    poll_until(busy, lambda: "working" in first.stages)
    job = logic.register_async(nodes[0], other, **second.callbacks)
    poll_until(job, lambda: server.number("retreg_jobs_queued") == 1)
    with Untouched(scene, nodes):
        assert cancelled_within(job, second) < IDLE_S
        assert server.wait_until("retreg_jobs_queued", 0) < IDLE_S
    assert server.number("retreg_jobs_running") == 1
    busy.cancel()
    server.wait_until("retreg_jobs_running", 0)


def test_cancel_during_inference_is_quick_and_frees_the_worker(logic, server, nodes, scene):
    heard = Heard()
    with Untouched(scene, nodes):
        job = logic.register_async(*nodes, steps=1000, **heard.callbacks)
        poll_until(job, lambda: "working" in heard.stages)
        assert cancelled_within(job, heard) < IDLE_S
        assert server.wait_until("retreg_jobs_running", 0) < IDLE_S
    begun = time.monotonic()
    logic.register(*nodes)
    assert time.monotonic() - begun < 10  # the cancelled one would have taken 20 s


def test_cancel_while_a_request_hangs_is_quick(new_logic, server, nodes, scene):
    heard = Heard()
    with relay_to(server.url) as relay:
        relay.silent.set()
        job = new_logic(relay.url).register_async(*nodes, **heard.callbacks)
        poll_until(job, lambda: relay.sent > 0)
        with Untouched(scene, nodes):
            assert cancelled_within(job, heard) < IDLE_S


def test_progress_that_raises_cancels_the_blocking_call(logic, server, nodes, scene):
    def progress(stage: str, _fraction: float) -> None:
        if stage == "working":
            raise Cancelled("Enough.")

    with Untouched(scene, nodes), pytest.raises(Cancelled, match="Enough"):
        logic.register(*nodes, steps=1000, progress=progress)
    assert server.wait_until("retreg_jobs_running", 0) < IDLE_S
