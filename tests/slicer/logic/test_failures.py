"""What goes wrong is one sentence, and the scene stays as it was."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from obedient import start
from relay import relay_to
from watching import Heard, Untouched, is_a_sentence, poll_until

from retreg.errors import InputError, OptionError, RegistrationError, RetRegError


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


@pytest.mark.parametrize(
    "body", [b"<html>Welcome</html>", b'{"id": [], "state": 3}', b"\xff\0", b""]
)
@pytest.mark.parametrize("status", [200, 202, 500])
def test_a_server_that_answers_garbage_is_one_sentence(new_logic, nodes, scene, status, body):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

        def log_message(self, *_) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        logic = new_logic(f"http://127.0.0.1:{server.server_address[1]}")
        with Untouched(scene, nodes), pytest.raises(RetRegError) as told:
            logic.register(*nodes)
        assert is_a_sentence(told.value) or str(told.value).endswith("?")
        with pytest.raises(RetRegError):
            logic.models()
        server.shutdown()


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
    from RetRegLib.scene import outcome

    def fail(*_):
        raise KeyError("name of a patient")

    monkeypatch.setattr(outcome, "fill_provenance", fail)
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


def test_nodes_that_cannot_take_the_result_are_told_before_anything_is_sent(
    new_logic, nodes, scene
):
    from RetRegLib.scene.output_nodes import OutputNodes

    logic = new_logic("http://127.0.0.1:9")  # nobody there
    label = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    with Untouched(scene, nodes), pytest.raises(InputError, match="cannot hold the warped"):
        logic.register(*nodes, wanted=OutputNodes(warped=label))
