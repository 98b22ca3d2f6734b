"""The processes of the devices: one for each, each with its own, ready when they are warm."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from multiprocessing.context import SpawnProcess

import pytest

from retreg import wire
from retreg.errors import Cancelled, FileError
from retreg.messages import RegistrationRequest
from retreg.progress import no_progress
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.registration.keymorph.detection import CHUNK
from retreg_server.registration.keymorph.model import keymorph_brain, keymorph_fundus
from retreg_server.registration.networks.keypoint_net import KeypointNet
from retreg_server.registration.networks.weights import is_shipped
from retreg_server.registration.registry import MODELS, get_model
from retreg_server.registration.volume.brain import AutoBrain
from retreg_server.serving.workers.executor import LocalExecutor, Task
from retreg_server.serving.workers.messages import SharedImage
from retreg_server.serving.workers.model_worker import LocalEngine
from retreg_server.serving.workers.process_handle import ProcessHandle, ProcessSpec
from retreg_server.serving.workers.process_main import NICENESS


def nothing() -> None:
    """Nobody counts restarts."""


async def devices_seen(executor: LocalExecutor, image: SharedImage, count: int) -> list[str]:
    """What so many registrations at a time say of CUDA_VISIBLE_DEVICES."""
    await executor.start()
    until = time.monotonic() + 60
    while executor.ready < count:
        assert time.monotonic() < until, f"{executor.ready} of {count} processes are warm"
        await asyncio.sleep(0.05)
    task = Task(image, image, "auto-brain", {"steps": 25})
    outcomes = await asyncio.gather(*(executor.run(task, no_progress, 60) for _ in range(count)))
    results = [wire.decode_result(wire.loads(each.result)) for each in outcomes]
    least = min(19, os.nice(0) + NICENESS)  # the server itself comes first
    assert {result.provenance["niceness"] for result in results} == {least}
    return sorted(str(result.provenance["visible"]) for result in results)


@pytest.mark.parametrize(
    ("devices", "found", "allowed", "expected"),
    [
        (("auto",), 0, None, ["None"]),
        (("auto",), 1, None, ["None"]),
        (("auto",), 3, None, ["1", "2", "None"]),
        (("auto",), 2, "4,7", ["4,7", "7"]),
        (("1", "cpu"), 2, "4,7", ["", "7"]),
    ],
)
def test_each_device_gets_a_process_that_uses_no_other(
    devices, found, allowed, expected, a_volume, tmp_path, monkeypatch
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if allowed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)

    async def run() -> list[str]:
        arguments = {"folder": str(tmp_path), "devices": str(found)}
        executor = LocalExecutor(devices, nothing, "fake_engine:fake_worker", arguments)
        try:
            return await devices_seen(executor, SharedImage.of(a_volume), len(expected))
        finally:
            executor.close()

    assert asyncio.run(run()) == expected


@pytest.mark.skipif(
    not (is_shipped("keymorph-brain") and is_shipped("keymorph-fundus")),
    reason="needs the trained weights",
)
def test_a_worker_is_warm_when_each_network_has_made_a_pass(monkeypatch):
    passes, forward = [], KeypointNet.forward
    monkeypatch.setattr(
        KeypointNet, "forward",
        lambda self, views: passes.append((views.ndim, len(views))) or forward(self, views),
    )  # fmt: skip
    get_model.cache_clear()
    for make in (keymorph_brain, keymorph_fundus):
        make.cache_clear()
    models, failures = LocalEngine().models()
    assert {dimensions for dimensions, _ in passes} == {4, 5}  # both networks
    assert (5, CHUNK) in passes  # as many views at a time as in a registration
    assert not failures
    assert set(filter(is_shipped, MODELS)) <= {model.name for model in models}


def test_weights_that_cannot_be_used_take_their_model_away_at_the_start(monkeypatch):
    def unusable(_model: AutoBrain) -> None:
        raise FileError("The weights are damaged.")

    monkeypatch.setattr(AutoBrain, "load", unusable)
    models, failures = LocalEngine().models()
    assert "auto-brain" not in {model.name for model in models}
    assert "damaged" in failures["auto-brain"]


@pytest.mark.skipif(not is_shipped("keymorph-fundus"), reason="needs the trained weights")
def test_a_cancellation_is_noticed_within_a_pass_of_a_network(monkeypatch):
    pair, passes, forward = make_fundus_pair(83, size=256), [], KeypointNet.forward
    monkeypatch.setattr(
        KeypointNet, "forward", lambda self, views: passes.append(True) or forward(self, views)
    )
    inside = []

    def report(stage: str, _fraction: float) -> None:
        if passes:
            inside.append(stage)
            raise Cancelled("Not wanted any more.")

    request = RegistrationRequest(pair.fixed, pair.moving, "keymorph-fundus", {})
    with pytest.raises(Cancelled):
        LocalEngine().register(request, report)
    assert len(passes) == 1
    assert inside == ["keypoints"]


def test_a_process_that_is_killed_while_it_starts_ends_all_the_same(monkeypatch):
    begun, killed, made = threading.Event(), threading.Event(), []
    start = SpawnProcess.start

    def start_late(process: SpawnProcess) -> None:
        made.append(process)
        begun.set()
        assert killed.wait(5)
        start(process)

    async def kill_early() -> None:
        child = ProcessHandle(ProcessSpec("no:matter", {}), lambda _: None)
        starting = asyncio.create_task(child.start())
        while not begun.is_set():
            await asyncio.sleep(0.01)
        starting.cancel()
        child.kill()
        killed.set()
        with pytest.raises(asyncio.CancelledError):
            await starting

    monkeypatch.setattr(SpawnProcess, "start", start_late)
    asyncio.run(kill_early())
    made[0].join(5)
    assert made[0].exitcode is not None
    assert made[0].exitcode < 0  # by a signal, before it could fail on its own
