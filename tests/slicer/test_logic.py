"""The logic without a widget: a real server with an obedient model, a real client, a real scene."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from retreg import Client, Grid, Image
from retreg.errors import Cancelled, InputError, OptionError, RegistrationError, RetRegError
from retreg.messages import RegistrationRequest
from retreg.server_process import ServerProcess

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

import fake_engine
from obedient_server import TOKEN
from relay import relay_to

HERE = Path(__file__).parent
IDLE_S = 1.0


@dataclass
class Server:
    """The obedient server."""

    url: str
    process: ServerProcess
    folder: Path

    @property
    def last_request(self) -> RegistrationRequest:
        """What reached the model last."""
        return fake_engine.remembered(self.folder)[-1]

    def number(self, name: str) -> float:
        """The sum of a metric over the labels that the pattern allows."""
        head = {"Authorization": f"Bearer {TOKEN}"}
        text = requests.get(f"{self.url}/metrics", headers=head, timeout=10).text
        return sum(float(value) for value in re.findall(rf"^{name} ([\d.e+]+)$", text, re.M))

    @property
    def puts(self) -> float:
        return self.number(r'retreg_request_seconds_count\{method="PUT".*\}')

    def wait_until(self, name: str, value: float, limit_s: float = 5.0) -> float:
        begun = time.monotonic()
        while self.number(name) != value:
            assert time.monotonic() - begun < limit_s, f"{name} is {self.number(name)}"
            time.sleep(0.02)
        return time.monotonic() - begun


def start(folder: Path) -> Server:
    command = (sys.executable, str(HERE / "obedient_server.py"), str(folder))
    process = ServerProcess(command, os.environ, folder / "server.log")
    try:
        return Server(process.wait_until_ready(), process, folder)
    except BaseException:
        process.stop()
        raise


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    server = start(tmp_path_factory.mktemp("obedient"))
    yield server
    server.process.stop()


@pytest.fixture
def new_logic(scene):
    """Makes a logic that uses the server at an address."""
    assert scene
    from RetRegLib.connection import Connection
    from RetRegLib.logic import Registration

    return lambda url: Registration(connection=Connection(url, TOKEN))


@pytest.fixture
def logic(new_logic, server) -> Any:
    return new_logic(server.url)


def a_volume(scene, name: str, seed: int, size: int = 12) -> Any:
    from RetRegLib.volumes import volume_from_image

    array = np.random.default_rng(seed).integers(-900, 900, (1, size, size, size)).astype(np.int16)
    grid = Grid((size, size, size), np.diag([1.5, -1.0, 2.0, 1.0]))
    return volume_from_image(Image(array, grid), name, scene)


@pytest.fixture
def nodes(scene, slicer) -> tuple[Any, Any]:
    """A fixed and a moving volume, each with a file; the moving one under a transform."""
    pair = (a_volume(scene, "fixed", 1), a_volume(scene, "moving", 2))
    for node in pair:
        storage = node.CreateDefaultStorageNode()
        scene.AddNode(storage)
        storage.SetFileName(f"somewhere/{node.GetName()}.nrrd")
        node.SetAndObserveStorageNodeID(storage.GetID())
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "parent")
    matrix = slicer.util.vtkMatrixFromArray(np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 4)
    parent.SetMatrixTransformToParent(matrix)
    pair[1].SetAndObserveTransformNodeID(parent.GetID())
    return pair


class Untouched:
    """The scene must be afterwards as it was before."""

    def __init__(self, scene: Any, nodes: tuple[Any, Any]) -> None:
        self._scene, self._nodes = scene, nodes

    def __enter__(self) -> None:
        self._before = self._state()

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            assert self._state() == self._before

    def _state(self) -> Any:
        count = self._scene.GetNumberOfNodes()
        every = [self._scene.GetNthNode(n).GetID() for n in range(count)]
        return every, [self._input(node) for node in self._nodes]

    @staticmethod
    def _input(node: Any) -> Any:
        from slicer.util import arrayFromVolume

        storage = node.GetStorageNode().GetFileName()
        voxels = arrayFromVolume(node).tobytes()
        return node.GetName(), storage, node.GetTransformNodeID(), voxels


def poll_until(job: Any, condition, limit_s: float = 30.0) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)
        job.poll()


class Heard:
    """What the callbacks of a registration hear."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.ends: list[tuple[str, Any]] = []

    @property
    def callbacks(self) -> dict[str, Any]:
        return {
            "on_progress": lambda stage, _: self.stages.append(stage),
            "on_done": lambda outcome: self.ends.append(("done", outcome)),
            "on_error": lambda error: self.ends.append(("error", error)),
            "on_cancelled": lambda: self.ends.append(("cancelled", None)),
        }


def is_a_sentence(error: Any) -> bool:
    text = str(error)
    return isinstance(error, RetRegError) and text.endswith(".") and "Traceback" not in text


# What comes back


def test_register_blocks_and_returns_nodes(logic, nodes, scene):
    told = []
    outcome = logic.register(*nodes, shift=3.0, progress=lambda *what: told.append(what))
    assert outcome.result.provenance["options"]["shift"] == 3.0
    assert outcome.transform.GetScene() is scene
    from RetRegLib.transform_nodes import transform_of

    moved = transform_of(outcome.transform)(np.zeros((1, 3)))
    assert np.allclose(moved, [[3.0, 0, 0]], atol=1e-9)
    assert told


def test_the_moving_volume_is_sent_as_it_lies_under_its_transform(logic, nodes, server):
    logic.register(*nodes)
    sent = server.last_request
    in_lps = np.diag([1.0, 1.0, 1.0, 1.0])
    in_lps[:3, 3] = -4.0, 0.0, 0.0  # the parent moves by 4 mm in RAS
    own = np.diag([1.5, -1.0, 2.0, 1.0])
    assert np.allclose(sent.fixed.grid.world_from_index, own)
    assert np.allclose(sent.moving.grid.world_from_index, in_lps @ own)
    assert sent.moving.array.dtype == np.int16


def test_async_calls_back_on_this_thread(logic, nodes):
    heard, threads = Heard(), []
    callbacks = heard.callbacks | {
        "on_done": lambda outcome: (
            threads.append(threading.current_thread()),
            heard.ends.append(("done", outcome)),
        )
    }
    job = logic.register_async(*nodes, shift=1.0, steps=5, **callbacks)
    assert not job.ended
    poll_until(job, lambda: job.ended)
    [(kind, outcome)] = heard.ends
    assert kind == "done"
    assert outcome.moving is nodes[1]
    assert threads == [threading.current_thread()]
    assert "working" in heard.stages


def test_models_are_those_of_the_server(logic):
    assert {model.name for model in logic.models()} == {"auto-fundus", "auto-brain"}


def test_a_transform_that_is_replaced_does_not_count_as_a_parent(logic, nodes, server):
    from RetRegLib.outcome import Wanted

    first = logic.register(*nodes, shift=3.0)
    before = server.last_request.moving.grid.world_from_index
    again = logic.register(*nodes, shift=3.0, wanted=Wanted(transform=first.transform))
    assert again.transform is first.transform
    assert np.allclose(server.last_request.moving.grid.world_from_index, before)


# What is sent


def test_an_image_that_the_server_has_is_not_sent_again(new_logic, server, scene):
    fixed, *moving = [a_volume(scene, f"volume {n}", 40 + n, 32) for n in range(3)]
    before, nbytes = server.puts, 2 * 32**3
    with relay_to(server.url) as relay:
        logic = new_logic(relay.url)
        logic.register(fixed, moving[0])
        assert server.puts - before == 2
        assert 2 * nbytes < relay.sent < 2.2 * nbytes
        logic.register(fixed, moving[1])
        assert server.puts - before == 3
        assert 3 * nbytes < relay.sent < 3.3 * nbytes


def test_a_batch_gives_an_outcome_or_an_error_for_each_pair(logic, server, scene):
    fixed, *moving = [a_volume(scene, f"volume {n}", 10 + n) for n in range(4)]
    before, told = server.puts, []
    pairs = [(fixed, moving[0]), (fixed, None), (fixed, moving[1]), (moving[2], fixed)]
    outcomes = logic.register_batch(pairs, steps=5, progress=lambda *what: told.append(what))
    assert [isinstance(each, InputError) for each in outcomes] == [False, True, False, False]
    assert "moving volume is missing" in str(outcomes[1])
    assert outcomes[2].moving is moving[1]
    # The last pair has the first fixed volume at another place, for that moves it.
    assert server.puts - before == 4
    assert any(stage.startswith("pair 3 of 4: ") for stage, _ in told)
    assert all(0 <= fraction <= 1 for _, fraction in told)


def test_a_batch_is_cancelled_as_a_whole(logic, scene):
    fixed, *moving = [a_volume(scene, f"volume {n}", 20 + n) for n in range(3)]

    def progress(stage: str, _fraction: float) -> None:
        if stage.startswith("pair 2"):
            raise Cancelled("Enough.")

    with pytest.raises(Cancelled):
        logic.register_batch([(fixed, each) for each in moving], steps=10, progress=progress)
    assert moving[0].GetTransformNodeID()
    assert not moving[1].GetTransformNodeID()


def test_before_the_first_upload_to_another_machine_the_user_is_asked(new_logic, nodes, scene):
    logic = new_logic("http://retreg.invalid:1")
    asked: list[str] = []
    with Untouched(scene, nodes), pytest.raises(InputError, match="Nothing was sent"):
        logic.register(*nodes)  # nobody is there to be asked
    logic.ask = lambda question: bool(asked.append(question))
    with pytest.raises(InputError, match="not agreed"):
        logic.register(*nodes)
    assert "retreg.invalid" in asked[0]
    logic.ask = lambda question: asked.append(question) or True
    for _ in range(2):  # agreed, but nobody answers
        with pytest.raises(RetRegError, match="can be reached"):
            logic.register(*nodes)
    assert len(asked) == 2
    assert not new_logic("http://127.0.0.1:1").consent.is_needed(
        new_logic("http://127.0.0.1:1").connection
    )


# What goes wrong


def test_without_a_server_it_says_what_to_do(nodes, scene):
    from RetRegLib.logic import Registration

    with Untouched(scene, nodes), pytest.raises(InputError, match="start the local one"):
        Registration().register(*nodes)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"kind": "nothing"}, RegistrationError, "looks alike"),
        ({"kind": "crash"}, RetRegError, "server failed unexpectedly"),
        ({"kind": "die"}, RetRegError, "ended unexpectedly"),
        ({"kind": "oom"}, RegistrationError, "memory"),
        ({"shift": "far"}, OptionError, "shift"),
        ({"model": "magic"}, OptionError, "magic"),
    ],
)
def test_a_failure_of_the_model_is_one_sentence_and_nothing_changes(
    logic, nodes, scene, options, kind, words
):
    with Untouched(scene, nodes), pytest.raises(kind, match=words):
        logic.register(*nodes, **options)


def test_a_server_that_is_stopped_is_one_sentence_and_nothing_changes(new_logic, nodes, scene):
    heard = Heard()
    with Untouched(scene, nodes):
        job = new_logic("http://127.0.0.1:9").register_async(*nodes, **heard.callbacks)
        poll_until(job, lambda: job.ended)
    [(kind, error)] = heard.ends
    assert kind == "error"
    assert is_a_sentence(error)
    assert "can be reached" in str(error)


@pytest.mark.parametrize("stage", ["sending the fixed image", "working"])
def test_a_server_that_is_lost_in_the_middle_is_one_sentence_and_nothing_changes(
    new_logic, server, nodes, scene, stage
):
    heard = Heard()
    with relay_to(server.url) as relay, Untouched(scene, nodes):
        relay.bytes_per_s = 5e3 if "sending" in stage else 1e9
        job = new_logic(relay.url).register_async(*nodes, steps=200, **heard.callbacks)
        poll_until(job, lambda: stage in heard.stages)
        relay.cut()
        begun = time.monotonic()
        poll_until(job, lambda: job.ended)
    assert time.monotonic() - begun < 10
    [(kind, error)] = heard.ends
    assert kind == "error"
    assert is_a_sentence(error)


def test_a_server_that_is_killed_in_the_middle_is_one_sentence(new_logic, nodes, scene, tmp_path):
    server, heard = start(tmp_path), Heard()
    try:
        with Untouched(scene, nodes):
            job = new_logic(server.url).register_async(*nodes, steps=500, **heard.callbacks)
            poll_until(job, lambda: "working" in heard.stages)
            server.process._process.kill()
            poll_until(job, lambda: job.ended)
    finally:
        server.process.stop()
    [(kind, error)] = heard.ends
    assert kind == "error"
    assert is_a_sentence(error)


def test_a_slow_server_keeps_the_caller_waiting_but_not_the_thread(new_logic, server, nodes):
    heard = Heard()
    with relay_to(server.url) as relay:
        relay.silent.set()
        job = new_logic(relay.url).register_async(*nodes, **heard.callbacks)
        begun = time.monotonic()
        for _ in range(50):
            time.sleep(0.01)
            job.poll()
        assert time.monotonic() - begun < 2
        assert heard.ends == []
        relay.silent.clear()
        poll_until(job, lambda: job.ended)
    assert heard.ends[0][0] == "done"


@pytest.mark.parametrize(
    "change", ["remove the fixed volume", "remove the moving volume", "move", "close the scene"]
)
def test_a_scene_that_changed_in_the_meantime_is_one_sentence(logic, nodes, scene, change, slicer):
    heard = Heard()
    job = logic.register_async(*nodes, steps=20, **heard.callbacks)
    if change.startswith("remove"):
        scene.RemoveNode(nodes["fixed" not in change])
    elif change == "move":
        parent = nodes[1].GetParentTransformNode()
        parent.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.eye(4)))
    else:
        scene.Clear(0)
    before = scene.GetNumberOfNodes()
    poll_until(job, lambda: job.ended)
    [(kind, error)] = heard.ends
    assert kind == "error"
    assert is_a_sentence(error)
    assert scene.GetNumberOfNodes() == before


def test_a_failure_while_nodes_are_made_leaves_none(logic, nodes, scene, monkeypatch):
    import RetRegLib.outcome

    def fail(*_):
        raise KeyError("name of a patient")

    monkeypatch.setattr(RetRegLib.outcome, "fill_provenance", fail)
    with Untouched(scene, nodes), pytest.raises(RetRegError, match="nobody foresaw") as told:
        logic.register(*nodes)
    assert "patient" not in str(told.value)


def test_what_cannot_be_registered_is_told_through_the_same_callback(logic, nodes, scene):
    heard = Heard()
    with Untouched(scene, nodes):
        job = logic.register_async(nodes[0], nodes[0], **heard.callbacks)
        poll_until(job, lambda: job.ended)
    [(kind, error)] = heard.ends
    assert kind == "error"
    assert "both fixed and moving" in str(error)


# Cancelling


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


# Sequences


@pytest.fixture
def a_sequence(scene, slicer) -> Any:
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "movie")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("s")
    scratch = slicer.vtkMRMLScene()
    for number in range(3):
        sequence.SetDataNodeAtValue(a_volume(scratch, "frame", 30 + number), f"{number * 0.5}")
    slicer.vtkSlicerSequencesLogic().SetMRMLScene(scene)  # makes the class of browsers known
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    return sequence


def test_a_sequence_becomes_sequences_with_the_same_index(logic, server, scene, a_sequence):
    from RetRegLib.transform_nodes import transform_of
    from RetRegLib.volumes import grid_of_volume

    fixed = a_volume(scene, "fixed", 60)
    before, told = server.puts, []
    outcome = logic.register_sequence(
        fixed, a_sequence, shift=4.0, progress=lambda *what: told.append(what)
    )
    assert server.puts - before == 4  # the fixed volume once
    values = ["0.0", "0.5", "1.0"]
    for sequence in (outcome.transforms, outcome.warped):
        assert [sequence.GetNthIndexValue(n) for n in range(3)] == values
        assert (sequence.GetIndexName(), sequence.GetIndexUnit()) == ("time", "s")
    for number in range(3):
        transform = transform_of(outcome.transforms.GetNthDataNode(number))
        assert np.allclose(transform([[0, 0, 0]]), [[4, 0, 0]], atol=1e-9)
        warped = grid_of_volume(outcome.warped.GetNthDataNode(number))
        assert np.allclose(warped.world_from_index, grid_of_volume(fixed).world_from_index)
    assert outcome.verdicts.GetNumberOfRows() == 3
    assert outcome.verdicts.GetCellText(2, 1) == "accept"
    assert any(stage.startswith("volume 3 of 3: ") for stage, _ in told)


def test_the_new_sequences_play_along_with_the_input(logic, nodes, a_sequence, scene):
    outcome = logic.register_sequence(nodes[0], a_sequence)
    browser = scene.GetFirstNodeByName("browser")
    assert browser.IsSynchronizedSequenceNode(outcome.transforms)
    assert browser.IsSynchronizedSequenceNode(outcome.warped)


def test_a_sequence_that_fails_leaves_nothing(logic, nodes, a_sequence, scene):
    with Untouched(scene, nodes), pytest.raises(RegistrationError, match="looks alike"):
        logic.register_sequence(nodes[0], a_sequence, kind="nothing")
    empty = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "empty")
    with Untouched(scene, nodes), pytest.raises(InputError, match="does not hold volumes"):
        logic.register_sequence(nodes[0], empty)


def test_volumes_of_a_sequence_that_fail_are_left_out(nodes, a_sequence):
    from retreg import Affine, Keypoints, RegistrationResult
    from retreg.quality import Quality
    from RetRegLib.sequences import register_frames

    calls = []

    def register_one(_fixed, moving, _tell):
        calls.append(moving)
        if len(calls) == 2:
            raise RegistrationError("Nothing looks alike.")
        none = Keypoints(np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool))
        return RegistrationResult(Affine.identity(), none, none, Quality({}, "check", "So."), {})

    outcome = register_frames(nodes[0], a_sequence, register_one, None)
    values = [outcome.transforms.GetNthIndexValue(n) for n in range(2)]
    assert values == ["0.0", "1.0"]
    assert outcome.warped.GetNumberOfDataNodes() == 2
    assert outcome.verdicts.GetCellText(1, 1) == "fail"
    assert outcome.verdicts.GetCellText(1, 2) == "Nothing looks alike."
    assert isinstance(outcome.frames[1], RegistrationError)


def test_the_logic_needs_neither_qt_nor_the_application(slicer):
    assert slicer
    import subprocess

    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "import RetRegLib.logic\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'qt', 'ctk', 'requests', 'torch', 'PIL', 'SimpleITK'}))\n"
    )
    module = str(HERE.parents[1] / "SlicerRetReg")
    command = [sys.executable, "-c", code, module]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert run.stdout.strip() == "[]"
    assert Client  # the client itself is part of the shared library
