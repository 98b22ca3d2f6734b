"""The logic without a widget: a real server with an obedient model, a real scene."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from relay import relay_to
from watching import Heard, Untouched, a_volume, poll_until

from retreg.errors import Cancelled, InputError, RetRegError

SLICER_MODULE = Path(__file__).parents[3] / "SlicerRetReg"


def test_register_blocks_and_returns_nodes(logic, nodes, scene):
    told = []
    outcome = logic.register(*nodes, shift=3.0, progress=lambda *what: told.append(what))
    assert outcome.result.provenance["options"]["shift"] == 3.0
    assert outcome.transform.GetScene() is scene
    from RetRegLib.scene.transform_nodes import transform_of

    moved = transform_of(outcome.transform)(np.zeros((1, 3)))
    assert np.allclose(moved, [[3.0, 0, 0]], atol=1e-9)
    assert told


def test_the_moving_volume_is_sent_as_it_lies_under_its_transform(logic, nodes, server):
    logic.register(*nodes)
    fixed, moving = server.last_headers
    in_lps = np.diag([1.0, 1.0, 1.0, 1.0])
    in_lps[:3, 3] = -4.0, 0.0, 0.0  # the parent moves by 4 mm in RAS
    own = np.diag([1.5, -1.0, 2.0, 1.0])
    assert np.allclose(fixed.grid.world_from_index, own)
    assert np.allclose(moving.grid.world_from_index, in_lps @ own)
    assert moving.dtype == np.int16


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
    offered = {model.name for model in logic.models()}
    assert offered == {"auto-fundus", "auto-brain", "auto-volume"}


def test_a_transform_that_is_replaced_does_not_count_as_a_parent(logic, nodes, server):
    from RetRegLib.scene.output_nodes import OutputNodes

    first = logic.register(*nodes, shift=3.0)
    before = server.last_headers[1].grid.world_from_index
    again = logic.register(*nodes, shift=3.0, wanted=OutputNodes(transform=first.transform))
    assert again.transform is first.transform
    assert np.allclose(server.last_headers[1].grid.world_from_index, before)


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


def test_the_logic_needs_neither_qt_nor_the_application(slicer):
    assert slicer
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "import RetRegLib.logic\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'qt', 'ctk', 'requests', 'torch', 'PIL', 'SimpleITK'}))\n"
    )
    command = [sys.executable, "-c", code, str(SLICER_MODULE)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert run.stdout.strip() == "[]"
