"""What goes wrong on the inside: workers that die or hang, too little memory, restarts."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeEngine

from retreg import wire
from retreg.about import About
from retreg.client import Client
from retreg.errors import InputError, RegistrationError, ServerError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.progress import no_progress
from retreg_server.serving.settings import Settings
from retreg_server.serving.storage.job_store import FILE, PREFIX, Store
from retreg_server.serving.workers.messages import Message, SharedImage
from retreg_server.serving.workers.model_worker import ModelWorker, halved


def order(server, image: Image, **options) -> str:
    """The path of a new registration of an image to itself."""
    header, body = wire.encode_image(image)
    address = wire.image_address(header, body)
    server.put(f"/v1/images/{address}", data=body, headers={wire.IMAGE_HEADER: header})
    message = {"fixed": address, "moving": address, "options": options}
    answer = server.post("/v1/registrations", json=message)
    assert answer.status_code == 202, answer.text
    return f"/v1/registrations/{answer.json()['id']}"


def ended(server, job: str, within_s: float = 20) -> dict:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        status = server.get(job).json()
        if status["state"] not in ("queued", "running"):
            return status
        time.sleep(0.02)
    pytest.fail(f"the job has not ended: {status}")


def metric(server, name: str) -> float:
    lines = server.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_a_dead_worker_fails_its_own_job_only_and_is_replaced(a_server, a_volume):
    before = metric(a_server, "retreg_worker_restarts_total")
    first = order(a_server, a_volume, kind="die")
    second = order(a_server, a_volume, shift=3.0)
    assert ended(a_server, first)["error"]["error"] == "worker-died"
    assert a_server.get(f"{first}/result").status_code == 500
    assert ended(a_server, second)["state"] == "done"
    assert metric(a_server, "retreg_worker_restarts_total") == before + 1
    assert a_server.get("/readyz").ok


def test_a_model_that_hangs_is_killed_when_it_is_cancelled(a_server, a_volume):
    job = order(a_server, a_volume, kind="hang")
    while a_server.get(job).json()["state"] == "queued":
        time.sleep(0.02)
    a_server.delete(job)
    assert ended(a_server, job)["state"] == "cancelled"
    assert ended(a_server, order(a_server, a_volume))["state"] == "done"


def test_a_job_that_waits_behind_one_that_hangs_gets_a_fresh_worker(a_server, a_volume):
    hanging = order(a_server, a_volume, kind="hang")
    waiting = order(a_server, a_volume, shift=8.0)
    while a_server.get(hanging).json()["state"] == "queued":
        time.sleep(0.02)
    a_server.delete(hanging)
    assert ended(a_server, waiting)["state"] == "done"


def test_a_job_that_takes_too_long_is_ended(start_server, a_volume):
    with start_server(Settings(job_deadline_s=0.5)) as server:
        late = order(server, a_volume, steps=200)
        assert ended(server, late)["error"]["error"] == "deadline"
        assert server.get(f"{late}/result").status_code == 504
        assert ended(server, order(server, a_volume))["state"] == "done"


def test_too_little_memory_is_met_with_half_the_resolution(a_server, a_volume):
    job = order(a_server, a_volume, kind="small-oom")
    assert ended(a_server, job)["state"] == "done"
    sizes = [request.fixed.grid.size for request in a_server.model.requests[-2:]]
    assert sizes == [(10, 8, 6), (5, 4, 3)]
    assert a_server.get(f"{job}/result").json()["provenance"]["resolution"] == "half"


@pytest.mark.parametrize(
    ("fixed", "moving", "words"),
    [
        ((256, 256, 160), (256, 256, 20), "64 x 64 x 40 voxels .fixed. and 64 x 64 x 20"),
        ((300, 300, 1), (64, 63, 1), "75 x 75 x 1 voxels .fixed. and 16 x 63 x 1"),
        ((10, 8, 6), (10, 8, 6), "although the images are small; check their voxel sizes"),
        ((2, 2, 2), (63, 63, 63), "although the images are small"),
        ((5, 1, 1), (1, 1, 1), "although the images are small"),
    ],
)
def test_much_too_little_memory_is_told_with_what_can_be_done(fixed, moving, words, tmp_path):
    worker = ModelWorker(FakeEngine(tmp_path))
    images = [Image(np.zeros((1, *size[::-1]), np.uint8), Grid(size, np.eye(4)))
              for size in (fixed, moving)]  # fmt: skip
    shared = [SharedImage.of(image) for image in images]
    head = {"model": "auto-brain", "options": {"kind": "oom"}}
    head["headers"] = [each.header for each in shared]
    with pytest.raises(RegistrationError, match=words):
        worker.answer(Message(head, tuple(each.voxels for each in shared)), no_progress)


def test_a_worker_that_takes_too_much_memory_fails_its_own_job_only(start_server, a_volume):
    with start_server(Settings(worker_memory_bytes=2**29, reuse_results=False)) as server:
        greedy = order(server, a_volume, kind="greedy")
        others = [order(server, a_volume, shift=float(n)) for n in range(3)]
        error = ended(server, greedy)["error"]
        assert error["error"] == "no-transform"
        assert "memory of the server" in error["message"]
        assert [ended(server, each)["state"] for each in others] == ["done"] * 3
        assert metric(server, "retreg_worker_restarts_total") == 0  # it was told, not killed


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="needs Linux")
def test_where_memory_runs_out_a_worker_goes_before_the_server(a_server, a_volume):
    job = order(a_server, a_volume)
    ended(a_server, job)
    offered = a_server.get(f"{job}/result").json()["provenance"]["offered"]
    assert int(offered) > int(Path("/proc/self/oom_score_adj").read_text())
    unit = Path(__file__).parents[2] / "docs" / "examples" / "retreg.service"
    assert "OOMPolicy=continue" in unit.read_text().splitlines()


@pytest.mark.parametrize("size", [(10, 8, 6), (7, 5, 1), (1, 1, 1)])
def test_half_the_resolution_keeps_each_voxel_in_its_place(size):
    matrix = np.array([[0.8, 0.6, 0, -20], [-0.6, 0.8, 0, 5], [0, 0, -2.5, 7], [0, 0, 0, 1.0]])
    grid = Grid(size, matrix)
    index = np.indices(grid.shape)[::-1].reshape(3, -1)
    world = matrix[:3, :3] @ index + matrix[:3, 3:]
    image = Image(world.reshape(3, *grid.shape).astype(np.float32), grid, About("scan"))
    half = halved(image)
    assert half.about == About("scan")
    index = np.indices(half.grid.shape)[::-1].reshape(3, -1)
    expected = half.grid.world_from_index[:3, :3] @ index + half.grid.world_from_index[:3, 3:]
    np.testing.assert_allclose(half.array.reshape(3, -1), expected, atol=1e-4)
    assert half.grid.size == tuple((n + 1) // 2 for n in size)


def test_equal_requests_are_answered_without_the_model(start_server, a_volume):
    with start_server(Settings()) as server:
        first = order(server, a_volume, shift=5.0)
        assert ended(server, first)["state"] == "done"
        asked = len(server.model.requests)
        second = order(server, a_volume, shift=5.0)
        assert second != first
        assert server.get(second).json()["state"] == "done"
        assert server.get(f"{second}/result").content == server.get(f"{first}/result").content
        assert len(server.model.requests) == asked
        assert metric(server, "retreg_results_reused_total") >= 1
        server.delete(first)
        assert server.get(f"{second}/result").ok
        ended(server, order(server, a_volume, shift=5.5))
        assert len(server.model.requests) == asked + 1


def test_finished_results_are_still_there_after_a_restart(start_server, a_volume, tmp_path):
    settings = Settings(state_dir=tmp_path / "state")
    with start_server(settings) as server:
        job = order(server, a_volume, shift=5.0)
        ended(server, job)
        result = server.get(f"{job}/result").content
    with start_server(settings) as server:
        assert server.get(f"{job}/result").content == result
        assert server.get(f"{job}/transform", params={"format": "tfm"}).ok
        asked = server.get(f"{job}/warped")
        assert (asked.status_code, asked.json()["error"]) == (404, "unknown-image")


def test_what_a_stopped_server_did_not_finish_says_so(start_server, a_volume, tmp_path):
    settings = Settings(state_dir=tmp_path / "state", stop_grace_s=0.2)
    with start_server(settings) as server:
        running = order(server, a_volume, steps=500)
        waiting = order(server, a_volume, shift=1.0)
    with start_server(settings) as server:
        for job in (running, waiting):
            assert server.get(job).json()["error"]["error"] == "interrupted"
            assert server.get(f"{job}/result").status_code == 503


def test_a_running_job_may_finish_when_the_server_stops(start_server, a_volume, tmp_path):
    settings = Settings(state_dir=tmp_path / "state", stop_grace_s=20)
    with start_server(settings) as server:
        job = order(server, a_volume, steps=50)
        while server.get(job).json()["state"] == "queued":
            time.sleep(0.02)
    with start_server(settings) as server:
        assert server.get(job).json()["state"] == "done"


def test_a_folder_belongs_to_one_server(tmp_path):
    store = Store(tmp_path, 1000, 60)
    with pytest.raises(InputError, match="another server"):
        Store(tmp_path, 1000, 60)
    store.close()
    Store(tmp_path, 1000, 60).close()


def test_a_damaged_store_is_put_aside(tmp_path):
    (tmp_path / FILE).write_bytes(b"this is not a database, " * 100)
    Store(tmp_path, 1000, 60).close()
    assert (tmp_path / f"{FILE}.damaged").exists()


def test_files_that_a_killed_server_left_are_removed(tmp_path, monkeypatch):
    scratch = tmp_path / "mine" / "scratch"
    scratch.mkdir(parents=True)
    (scratch / "patient.dcm").write_text("x")
    Store(tmp_path / "mine", 1000, 60).close()
    assert not scratch.exists()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    living = Store(None, 1000, 60)
    dead = tmp_path / f"{PREFIX}dead"
    Store(dead, 1000, 60).close()
    (dead / "scratch").mkdir()
    for folder in (dead, living.scratch.parent):
        os.utime(folder, (0, 0))
    Store(None, 1000, 60).close()
    assert not dead.exists()
    assert living.scratch.exists()
    living.close()
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def test_nobody_watches_any_more_so_the_job_is_cancelled(start_server, a_volume):
    with start_server(Settings(abandoned_s=0.3)) as server:
        job = order(server, a_volume, steps=500)
        with server.get(f"{job}/events", stream=True) as answer:
            next(answer.iter_lines())
        time.sleep(1.5)
        assert server.get(job).json()["state"] == "cancelled"
        unwatched = order(server, a_volume, steps=40)
        assert ended(server, unwatched, 5)["state"] == "done"


def raw(server, request: bytes, then_send=()) -> bytes:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(request.replace(b"HOST", f"{host}:{port}".encode()))
        try:
            for part in then_send:
                connection.sendall(part)
        except OSError:
            return b"refused"
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def test_an_endless_body_is_cut_off(a_server, a_picture):
    header, _ = wire.encode_image(a_picture)
    start = f"PUT /v1/images/{'0' * 64} HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n"
    start += f"{wire.IMAGE_HEADER}: {header}\r\n\r\n"
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"

    def endless():
        until = time.monotonic() + 20
        while time.monotonic() < until:
            yield chunk
        pytest.fail("the server listened for 20 s")

    assert raw(a_server, start.encode(), endless()) == b"refused"
    assert a_server.get("/healthz").ok


def test_a_slow_body_is_cut_off_with_a_sentence(start_server, a_picture):
    header, _ = wire.encode_image(a_picture)
    start = f"PUT /v1/images/{'0' * 64} HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1800\r\n"
    start += f"{wire.IMAGE_HEADER}: {header}\r\n\r\nabc"
    with start_server(Settings(upload_idle_s=0.3)) as server:
        begun = time.monotonic()
        answer = raw(server, start.encode())
        assert time.monotonic() - begun < 8
    assert b" 408 " in answer
    assert b"too-slow" in answer
    assert b"connection: close" in answer.lower()


def test_a_file_that_takes_too_long_to_read_is_refused(start_server):
    with start_server(Settings(file_deadline_s=0.0)) as server:
        files = {"fixed": ("a.png", b"x"), "moving": ("b.png", b"x")}
        answer = server.post("/v1/register", files=files)
    assert (answer.status_code, answer.json()["error"]) == (422, "bad-file")


def test_every_answer_has_a_number_that_is_in_the_log(a_server, caplog):
    with caplog.at_level("INFO"):
        answer = a_server.get("/v1/info")
        time.sleep(0.1)
    number = answer.headers["X-Request-ID"]
    found = [record for record in caplog.records if getattr(record, "request", "") == number]
    assert [record.route for record in found] == ["/v1/info"]


def test_the_client_names_the_number_of_a_request_that_failed(a_server, a_volume):
    with Client(a_server.url) as client, pytest.raises(ServerError, match=r"request [0-9a-f]{16}"):
        client.register(a_volume, a_volume, kind="crash")


def test_the_numbers_of_the_server_can_be_read(a_server, a_volume):
    before = metric(a_server, 'retreg_jobs_total{model="auto-brain",state="done"}')
    ended(a_server, order(a_server, a_volume))
    assert metric(a_server, 'retreg_jobs_total{model="auto-brain",state="done"}') == before + 1
    text = a_server.get("/metrics").text
    assert 'retreg_stage_seconds_count{model="auto-brain",stage="working"}' in text
    assert 'route="/v1/registrations/{job_id}"' in text
    assert "retreg_workers_ready 1.0" in text


def test_a_worker_that_dies_in_idleness_is_replaced(a_server, a_volume):
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = {int(pid) for path in children for pid in path.read_text().split()}
    workers = [p for p in pids if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]
    assert workers
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    assert ended(a_server, order(a_server, a_volume))["state"] == "done"
