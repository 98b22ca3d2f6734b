"""The same jobs on a simulated cluster: a head and two nodes, each with one made-up device."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from retreg import wire
from retreg.errors import RegistrationError
from retreg.progress import no_progress
from retreg_server.serving.workers.executor import Task
from retreg_server.serving.workers.messages import SharedImage
from retreg_server.serving.workers.process_handle import ProcessDied, ProcessFailed

pytest.importorskip("ray.serve", reason="needs the extra ray")

from ray.cluster_utils import Cluster as SimulatedCluster

from retreg_server.serving.workers.ray_executor import Cluster, RayExecutor

DEVICE = {"fakegpu": 1.0}
STORE_BYTES = 80 << 20
LONG = 100  # steps of 20 ms


@pytest.fixture(scope="module")
def a_cluster() -> Iterator[SimulatedCluster]:
    """Three nodes in processes of their own on this machine; two of them have a device."""
    here = str(Path(__file__).parent)  # the replicas import the stand-in by its name
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    head = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = SimulatedCluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        add_node(cluster)
    yield cluster
    cluster.shutdown()


def add_node(cluster: SimulatedCluster):
    return cluster.add_node(num_cpus=1, resources=DEVICE, object_store_memory=STORE_BYTES)


@pytest.fixture(scope="module")
def run(a_cluster, tmp_path_factory) -> Iterator[Callable]:
    """Runs a coroutine function of an executor, which is started once for all tests."""
    arguments = {"folder": str(tmp_path_factory.mktemp("model"))}
    deaths: list[None] = []
    executor = RayExecutor(
        Cluster(a_cluster.address, (1, 2), DEVICE, idle_s=3600),
        lambda: deaths.append(None), "fake_engine:fake_worker", arguments,
    )  # fmt: skip
    with asyncio.Runner() as runner:
        models = runner.run(executor.start())
        assert [model.name for model in models] == ["auto-fundus", "auto-brain", "auto-volume"]
        executor.deaths = deaths

        def run_it(work: Callable[[RayExecutor], Awaitable]):
            async def within() -> object:
                return await asyncio.wait_for(work(executor), 120)

            return runner.run(within())

        yield run_it
        executor.close()


@pytest.fixture
def order(a_volume) -> Callable[..., Task]:
    image = SharedImage.of(a_volume)
    return lambda **options: Task(image, image, "auto-brain", options)


def shift_of(outcome) -> float:
    result = wire.decode_result(wire.loads(outcome.result))
    return float(result.transform(np.zeros((1, 3)))[0, 0])


def test_a_task_is_answered_and_tells_its_progress(run, order):
    told = []

    async def work(executor):
        return await executor.run(order(shift=4.0, steps=5), lambda *each: told.append(each), 60)

    outcome = run(work)
    assert shift_of(outcome) == 4.0
    assert outcome.seconds == {"working": 0.01}
    assert told[0] == ("starting", 0.0)
    assert told[1:] == [("working", step / 5) for step in range(5)]


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [("nothing", RegistrationError, "looks alike"), ("crash", ProcessFailed, "^KeyError in ")],
)
def test_errors_keep_their_class_and_hold_no_data(run, order, kind, error, text):
    async def work(executor):
        await executor.run(order(kind=kind), no_progress, 60)

    with pytest.raises(error, match=text) as caught:
        run(work)
    assert "patient" not in str(caught.value)


def test_waiting_tasks_make_a_second_replica_start(run, order):
    async def work(executor):
        outcomes = await asyncio.gather(
            *(executor.run(order(shift=float(n), steps=LONG), no_progress, 60) for n in range(6))
        )
        until = time.monotonic() + 30
        while executor.ready < 2 and time.monotonic() < until:
            await asyncio.sleep(0.1)
        return [shift_of(each) for each in outcomes], executor.ready

    assert run(work) == ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 2)


def test_a_cancelled_task_frees_its_replica_at_once(run, order):
    async def work(executor):
        begun = [asyncio.Event() for _ in range(2)]
        tasks = [
            asyncio.create_task(
                executor.run(order(steps=1000), lambda *_, event=event: event.set(), 60)
            )
            for event in begun
        ]
        await asyncio.gather(*(event.wait() for event in begun))
        for task in tasks:
            task.cancel()
        started = time.monotonic()
        await asyncio.gather(*(executor.run(order(), no_progress, 60) for _ in range(2)))
        assert all(task.cancelled() for task in tasks)
        return time.monotonic() - started

    assert run(work) < 5  # the cancelled ones would have taken 20 s


def test_a_task_that_takes_too_long_is_ended(run, order):
    async def work(executor):
        with pytest.raises(TimeoutError):
            await executor.run(order(steps=1000), no_progress, 0.5)
        return shift_of(await executor.run(order(shift=1.0), no_progress, 60))

    assert run(work) == 1.0


def test_an_image_is_put_into_the_cluster_once(run, order):
    async def work(executor):
        task = order()
        await executor.run(task, no_progress, 60)
        first = executor._references[task.fixed]
        await executor.run(task, no_progress, 60)
        return executor._references[task.fixed] == first, len(executor._references)

    same, _ = run(work)
    assert same


def test_a_killed_node_loses_no_task(run, order, a_cluster):
    async def work(executor):
        until = time.monotonic() + 30
        while executor.ready < 2 and time.monotonic() < until:
            await asyncio.sleep(0.1)
        under_way, both = set(), asyncio.Event()

        def tell(number: int, fraction: float) -> None:
            if fraction > 0.1:
                under_way.add(number)
            if len(under_way) == 2:
                both.set()

        tasks = [
            asyncio.create_task(
                executor.run(
                    order(shift=float(number), steps=LONG),
                    lambda _, fraction, number=number: tell(number, fraction),
                    60,
                )
            )
            for number in range(6)
        ]
        await both.wait()  # each device has one
        before = len(executor.deaths)
        node = a_cluster.list_all_nodes()[-1]  # not the head
        await asyncio.to_thread(a_cluster.remove_node, node, False)
        outcomes = await asyncio.gather(*tasks)
        return [shift_of(each) for each in outcomes], len(executor.deaths) - before

    shifts, deaths = run(work)
    assert shifts == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert deaths == 1
    add_node(a_cluster)


def test_an_image_that_kills_every_worker_is_given_up(run, order):
    async def work(executor):
        with pytest.raises(ProcessDied):
            await executor.run(order(kind="die"), no_progress, 60)
        return shift_of(await executor.run(order(shift=2.0), no_progress, 60))

    assert run(work) == 2.0
