"""The HTTP contract, against a real server."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import threading
import time
import tracemalloc

import numpy as np
import pytest
import requests
from PIL import Image as Picture

from retreg import wire
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import RegistrationResult
from retreg_server.serving.settings import Settings

EYE = np.eye(4)
DEFAULTS = {"shift": 0.0, "steps": 0, "kind": "affine", "mirror": False, "axis": "none",
            "smoothing": 0.0, "transform": "affine"}  # fmt: skip


def upload(server, image: Image, encoding: wire.Encoding = "identity") -> str:
    header, body = wire.encode_image(image, encoding)
    address = wire.image_address(header, body)
    answer = server.put(f"/v1/images/{address}", data=body, headers={wire.IMAGE_HEADER: header})
    assert answer.status_code == 201, answer.text
    return address


def order(server, image: Image, **options) -> str:
    address = upload(server, image)
    message = {"fixed": address, "moving": address, "options": options}
    answer = server.post("/v1/registrations", json=message)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/v1/registrations/{answer.json()['id']}"
    return answer.json()["id"]


def ended(server, job: str) -> dict:
    for _ in range(500):
        status = server.get(f"/v1/registrations/{job}").json()
        if status["state"] not in ("queued", "running"):
            return status
        time.sleep(0.01)
    pytest.fail(f"the job has not ended: {status}")


def result_of(server, job: str) -> RegistrationResult:
    answer = server.get(f"/v1/registrations/{job}/result")
    return wire.decode_result(wire.loads(answer.content))


def assert_error(answer: requests.Response, status: int, slug: str) -> None:
    assert answer.status_code == status, answer.text
    message = answer.json()
    assert set(message) == {"error", "message"}
    assert message["error"] == slug
    assert re.fullmatch(r"\w.{10,}\.", message["message"]), message["message"]
    assert "Traceback" not in message["message"]


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Picture.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def files(content: bytes, name: str = "some patient.png") -> dict:
    return {"fixed": (name, content), "moving": (name, content)}


def test_a_healthy_server_says_so(a_server):
    assert a_server.get("/healthz").json() == {"status": "ok"}
    assert a_server.get("/readyz").json() == {"status": "ready"}
    assert a_server.get("/v1/info").json()["encodings"] == list(wire.ENCODINGS)


def test_models_are_listed_with_their_options(a_server):
    models = wire.decode_models(a_server.get("/v1/models").json())
    assert [model.name for model in models] == ["auto-fundus", "auto-brain", "auto-volume"]
    assert models[0].options[0].name == "shift"


def test_an_image_is_there_after_put_and_gone_after_delete(a_server, a_volume):
    fresh = Image(a_volume.array + 17, a_volume.grid)
    header, body = wire.encode_image(fresh)
    path = f"/v1/images/{wire.image_address(header, body)}"
    assert requests.head(a_server.url + path, timeout=5).status_code == 404
    upload(a_server, fresh)
    assert requests.head(a_server.url + path, timeout=5).status_code == 200
    assert requests.delete(a_server.url + path, timeout=5).status_code == 204
    assert requests.head(a_server.url + path, timeout=5).status_code == 404
    assert_error(requests.delete(a_server.url + path, timeout=5), 404, "unknown-image")


@pytest.mark.parametrize("encoding", wire.ENCODINGS)
def test_the_model_gets_the_voxels_and_the_geometry_that_were_sent(a_server, a_volume, encoding):
    address = upload(a_server, a_volume, encoding)
    answer = a_server.post("/v1/registrations", json={"fixed": address, "moving": address})
    ended(a_server, answer.json()["id"])
    request = a_server.model.requests[-1]
    assert request.model == "auto-brain"
    np.testing.assert_array_equal(request.fixed.array, a_volume.array)
    np.testing.assert_array_equal(
        request.moving.grid.world_from_index, a_volume.grid.world_from_index
    )


@pytest.mark.parametrize("encoding", ["identity", "zlib+shuffle"])
@pytest.mark.parametrize("piece", [977, 65_536, 300_001])
def test_an_image_arrives_whole_in_pieces_of_any_size(a_server, encoding, piece):
    rng = np.random.default_rng(piece)
    volume = Image(rng.integers(0, 2**15, (1, 20, 100, 120), np.int16), Grid((120, 100, 20), EYE))
    header, body = wire.encode_image(volume, encoding)
    address = wire.image_address(header, body)
    pieces = (body[start : start + piece] for start in range(0, len(body), piece))
    path = f"/v1/images/{address}"
    assert a_server.put(path, data=pieces, headers={wire.IMAGE_HEADER: header}).status_code == 201
    answer = a_server.post("/v1/registrations", json={"fixed": address, "moving": address})
    ended(a_server, answer.json()["id"])
    np.testing.assert_array_equal(a_server.model.requests[-1].moving.array, volume.array)


def test_a_job_runs_to_its_result(a_server, a_picture):
    job = order(a_server, a_picture, shift=12.5)
    assert ended(a_server, job)["state"] == "done"
    result = result_of(a_server, job)
    np.testing.assert_allclose(result.transform(np.zeros((1, 3))), [[12.5, 0, 0]])
    assert result.provenance["model"] == "auto-fundus"


def test_infinity_reaches_the_model_in_its_reserved_spelling(a_server, a_volume):
    ended(a_server, order(a_server, a_volume, smoothing="Infinity"))
    assert a_server.model.requests[-1].options["smoothing"] == float("inf")


def test_events_tell_the_progress_and_end_with_the_job(a_server, a_volume):
    job = order(a_server, a_volume, steps=10)
    with a_server.get(f"/v1/registrations/{job}/events", stream=True) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line]
    fractions = [event["fraction"] for event in events]
    assert fractions == sorted(fractions)
    assert len(events) >= 5
    assert events[-1]["state"] == "done"


def test_events_beat_every_second_when_nothing_changes(a_server, a_volume):
    first = order(a_server, a_volume, steps=60)
    second = order(a_server, a_volume)
    with a_server.get(f"/v1/registrations/{second}/events", stream=True) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line]
    assert [event["state"] for event in events[:2]] == ["queued", "queued"]
    assert ended(a_server, first)["state"] == "done"


def test_a_result_that_is_not_there_yet_is_a_conflict(a_server, a_volume):
    job = order(a_server, a_volume, steps=20)
    assert_error(a_server.get(f"/v1/registrations/{job}/result"), 409, "not-finished")
    ended(a_server, job)


def test_a_running_job_is_cancelled_within_a_step(a_server, a_volume):
    job = order(a_server, a_volume, steps=500)
    time.sleep(0.1)
    start = time.monotonic()
    assert requests.delete(f"{a_server.url}/v1/registrations/{job}", timeout=5).status_code == 204
    status = ended(a_server, job)
    assert time.monotonic() - start < 1
    assert status["state"] == "cancelled"
    assert_error(a_server.get(f"/v1/registrations/{job}/result"), 409, "cancelled")


def test_a_waiting_job_is_cancelled_without_ever_running(a_server, a_volume):
    first = order(a_server, a_volume, steps=20)
    second = order(a_server, a_volume, shift=77.0)
    requests.delete(f"{a_server.url}/v1/registrations/{second}", timeout=5)
    assert ended(a_server, second)["state"] == "cancelled"
    ended(a_server, first)
    ended(a_server, order(a_server, a_volume))
    assert all(r.options.get("shift") != 77.0 for r in a_server.model.requests)


def test_deleting_an_ended_job_forgets_its_result(a_server, a_volume):
    job = order(a_server, a_volume)
    ended(a_server, job)
    requests.delete(f"{a_server.url}/v1/registrations/{job}", timeout=5)
    assert_error(a_server.get(f"/v1/registrations/{job}"), 404, "unknown-registration")


def test_a_model_that_finds_nothing_is_an_error_in_words(a_server, a_volume):
    job = order(a_server, a_volume, kind="nothing")
    assert ended(a_server, job)["error"]["message"] == "Nothing in the two images looks alike."
    assert_error(a_server.get(f"/v1/registrations/{job}/result"), 422, "no-transform")


def test_a_crash_of_the_model_tells_and_logs_no_secret(a_server, a_volume, caplog):
    with caplog.at_level(logging.DEBUG):
        job = order(a_server, a_volume, kind="crash")
        ended(a_server, job)
        answer = a_server.get(f"/v1/registrations/{job}/result")
    assert_error(answer, 500, "internal")
    assert "secret" not in answer.text + caplog.text
    assert "KeyError" in caplog.text
    assert ended(a_server, order(a_server, a_volume))["state"] == "done"


@pytest.mark.parametrize(
    "change",
    [
        {"fixed": "abc"},
        {"fixed": "../../etc/passwd"},
        {"fixed": None},
        {"model": "../x"},
        {"model": 3},
        {"options": []},
        {"options": {"shift": None}},
        {"options": {"shift": [1]}},
        {"options": {"shift": 10**400}},
        {"options": {"shift": "x" * 101}},
        {"options": {f"o{i}": 1 for i in range(101)}},
        {"surprise": 1},
    ],
)
def test_an_order_of_the_wrong_shape_is_refused(a_server, a_volume, change):
    address = upload(a_server, a_volume)
    message = {"fixed": address, "moving": address} | change
    assert_error(a_server.post("/v1/registrations", json=message), 422, "bad-input")


@pytest.mark.parametrize(
    "change",
    [
        {"model": "unheard-of"},
        {"options": {"unheard-of": 1}},
        {"options": {"shift": "far"}},
        {"options": {"shift": True}},
        {"options": {"steps": -1}},
        {"options": {"steps": 2.5}},
        {"options": {"steps": "Infinity"}},
        {"options": {"kind": "magic"}},
        {"options": {"kind": 1}},
        {"options": {"mirror": 1}},
        {"options": {"axis": "AP"}},
        {"options": {"smoothing": "NaN"}},
    ],
)
def test_an_unknown_model_option_or_value_is_refused_at_once(a_server, a_volume, change):
    address = upload(a_server, a_volume)
    message = {"fixed": address, "moving": address} | change
    assert_error(a_server.post("/v1/registrations", json=message), 422, "bad-option")


@pytest.mark.parametrize("text", ["{", "", "[]", "\x00", '{"fixed": NaN}', "[" * 60_000])
def test_a_body_that_is_no_order_is_refused(a_server, text):
    headers = {"Content-Type": "application/json"}
    answer = a_server.post("/v1/registrations", data=text, headers=headers)
    assert answer.status_code in (400, 422)
    assert_error(answer, answer.status_code, "bad-input")


def test_an_image_that_was_never_sent_cannot_be_registered(a_server):
    message = {"fixed": "0" * 64, "moving": "0" * 64}
    assert_error(a_server.post("/v1/registrations", json=message), 404, "unknown-image")


def test_unknown_paths_and_methods_are_refused_in_words(a_server):
    assert_error(a_server.get("/v1/nothing"), 404, "not-found")
    assert_error(a_server.post("/v1/models"), 405, "method-not-allowed")
    assert_error(a_server.get(f"/v1/registrations/{'0' * 32}"), 404, "unknown-registration")
    assert_error(a_server.get("/v1/registrations/..%2f..%2fetc"), 404, "not-found")
    assert_error(a_server.get("/v1/registrations/XYZ"), 422, "bad-input")


def test_an_image_under_the_wrong_sum_is_refused(a_server, a_volume):
    header, body = wire.encode_image(a_volume)
    answer = a_server.put(
        f"/v1/images/{'0' * 64}", data=body, headers={wire.IMAGE_HEADER: header}
    )
    assert_error(answer, 422, "bad-input")
    assert "SHA-256" in answer.json()["message"]


def test_a_short_body_is_refused_even_under_its_own_sum(a_server, a_volume):
    header, body = wire.encode_image(a_volume)
    address = wire.image_address(header, body[:-1])
    answer = a_server.put(
        f"/v1/images/{address}", data=body[:-1], headers={wire.IMAGE_HEADER: header}
    )
    assert_error(answer, 422, "bad-input")


def test_an_image_without_a_header_is_refused(a_server):
    assert_error(a_server.put(f"/v1/images/{'0' * 64}", data=b"abc"), 422, "bad-input")


def test_a_header_that_is_not_ascii_is_refused(a_server):
    headers = {wire.IMAGE_HEADER: '{"dtype": "ü"}'.encode("latin-1")}
    answer = a_server.put(f"/v1/images/{'0' * 64}", data=b"abc", headers=headers)
    assert_error(answer, 422, "bad-input")


def test_a_chunked_body_over_the_declared_size_is_refused_and_not_kept(a_server, a_picture):
    header, _ = wire.encode_image(a_picture)
    chunks = (bytes(2**20) for _ in range(200))
    tracemalloc.start()
    answer = a_server.put(
        f"/v1/images/{'0' * 64}", data=chunks, headers={wire.IMAGE_HEADER: header}
    )
    assert_error(answer, 413, "too-large")
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


def test_too_large_images_and_messages_are_refused(start_server, a_picture):
    with start_server(Settings(max_image_bytes=1000)) as server:
        header, body = wire.encode_image(a_picture)
        path = f"/v1/images/{wire.image_address(header, body)}"
        answer = server.put(path, data=body, headers={wire.IMAGE_HEADER: header})
        assert_error(answer, 422, "bad-input")
        answer = server.put(path, data=bytes(70_000), headers={wire.IMAGE_HEADER: header})
        assert_error(answer, 413, "too-large")
        answer = server.post("/v1/registrations", data=bytes(2**20 + 1))
        assert_error(answer, 413, "too-large")
        chunks = iter([bytes(2**19)] * 3)
        headers = {"Content-Type": "application/json"}
        answer = server.post("/v1/registrations", data=chunks, headers=headers)
        assert_error(answer, 413, "too-large")


def test_a_full_queue_answers_429_and_says_when_to_come_back(start_server, a_volume):
    with start_server(Settings(queue_size=1)) as server:
        jobs = [order(server, a_volume, steps=200) for _ in range(2)]
        address = upload(server, a_volume)
        answer = server.post("/v1/registrations", json={"fixed": address, "moving": address})
        assert_error(answer, 429, "busy")
        assert int(answer.headers["Retry-After"]) >= 1
        for job in jobs:
            requests.delete(f"{server.url}/v1/registrations/{job}", timeout=5)
            ended(server, job)
        assert ended(server, order(server, a_volume))["state"] == "done"


def test_the_server_answers_quickly_while_a_job_runs(a_server, a_volume):
    job = order(a_server, a_volume, steps=50)
    with requests.Session() as session:
        waits = []
        for _ in range(50):
            start = time.perf_counter()
            assert session.get(a_server.url + "/healthz", timeout=5).ok
            waits.append(time.perf_counter() - start)
    assert np.median(waits) < 0.1  # the job takes a second: a blocked loop would show
    ended(a_server, job)


def test_old_images_make_room_for_new_ones(start_server, a_volume):
    size = a_volume.array.nbytes
    with start_server(Settings(image_store_bytes=2 * size + 10)) as server:
        images = [Image(a_volume.array + i, a_volume.grid) for i in range(3)]
        addresses = [upload(server, image) for image in images]
        found = [
            requests.head(f"{server.url}/v1/images/{address}", timeout=5).status_code
            for address in addresses
        ]
    assert found == [404, 200, 200]


def test_two_files_are_registered_in_one_request(a_server):
    array = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    answer = a_server.post(
        "/v1/register", files=files(png(array)), data={"shift": "2.5", "steps": "1"}
    )
    assert answer.status_code == 200, answer.text
    result = wire.decode_result(wire.loads(answer.content))
    np.testing.assert_allclose(result.transform(np.zeros((1, 3))), [[2.5, 0, 0]])
    request = a_server.model.requests[-1]
    assert request.options == DEFAULTS | {"shift": 2.5, "steps": 1}
    np.testing.assert_array_equal(request.fixed.array[:, 0], array.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("matrix", "slug"),
    [
        (np.zeros((4, 4)).tolist(), "bad-geometry"),
        ([[1e300] * 4] * 4, "bad-geometry"),
        (np.eye(3).tolist(), "bad-input"),
        ("identity", "bad-input"),
    ],
)
def test_an_initial_matrix_that_is_no_affine_is_refused(a_server, a_picture, matrix, slug):
    address = upload(a_server, a_picture)
    order = {"fixed": address, "moving": address, "initial": matrix}
    assert_error(a_server.post("/v1/registrations", json=order), 422, slug)


def test_masks_come_as_further_files_or_by_their_address(a_server, a_picture):
    drawn = np.zeros((20, 30), np.uint8)
    drawn[:, 10:] = 255
    form = files(png(a_picture.array[:, 0].transpose(1, 2, 0)))
    form["moving_mask"] = ("mask.png", png(drawn))
    answer = a_server.post("/v1/register", files=form)
    assert answer.status_code == 200, answer.text
    request = a_server.model.requests[-1]
    np.testing.assert_array_equal(request.moving.counted[0], drawn > 0)
    assert request.fixed.counted is None
    address = upload(a_server, a_picture)
    mask = upload(a_server, Image(drawn[None, None], a_picture.grid))
    order = {"fixed": address, "moving": address, "fixed_mask": mask, "options": {"steps": 3}}
    job = a_server.post("/v1/registrations", json=order).json()["id"]
    ended(a_server, job)
    np.testing.assert_array_equal(a_server.model.requests[-1].fixed.counted[0], drawn > 0)
    nothing = upload(a_server, Image(0 * drawn[None, None], a_picture.grid))
    answer = a_server.post("/v1/registrations", json={**order, "fixed_mask": nothing})
    assert_error(answer, 422, "bad-input")


@pytest.mark.parametrize(
    ("data", "slug"),
    [
        ({"model": "auto-magic"}, "bad-option"),
        ({"shift": "far"}, "bad-option"),
        ({"steps": "1.5"}, "bad-option"),
        ({"mirror": "maybe"}, "bad-option"),
        ({"unheard_of": "1"}, "bad-option"),
        ({"shift": "9" * 1100}, "bad-input"),
        ({f"o{i}": "1" for i in range(50)}, "bad-input"),
    ],
)
def test_wrong_form_fields_are_refused_in_words(a_server, data, slug):
    answer = a_server.post("/v1/register", files=files(png(np.zeros((9, 9), np.uint8))), data=data)
    assert_error(answer, 400 if slug == "bad-input" else 422, slug)


def test_infinity_and_switches_are_read_from_form_fields(a_server):
    data = {"smoothing": "inf", "mirror": "True", "kind": "affine"}
    answer = a_server.post("/v1/register", files=files(png(np.zeros((9, 9), np.uint8))), data=data)
    assert answer.status_code == 200, answer.text
    expected = DEFAULTS | {"smoothing": float("inf"), "mirror": True}
    assert a_server.model.requests[-1].options == expected


@pytest.mark.parametrize(
    ("content", "name", "status", "slug"),
    [
        (b"not a picture", "x.png", 422, "bad-file"),
        (b"", "x.png", 422, "bad-file"),
        (b"%PDF-1.7", "report.pdf", 415, "bad-file"),
        (b"#!/bin/sh", "../../../etc/cron.d/x.sh", 415, "bad-file"),
    ],
)
def test_files_that_are_no_images_are_refused_without_repeating_their_name(
    a_server, content, name, status, slug
):
    answer = a_server.post("/v1/register", files=files(content, name))
    assert_error(answer, status, slug)
    assert name not in answer.text


def test_a_form_without_both_files_is_refused(a_server):
    one = {"fixed": ("x.png", png(np.zeros((9, 9), np.uint8)))}
    assert_error(a_server.post("/v1/register", files=one), 422, "bad-input")
    texts = {"fixed": "a", "moving": "b"}
    assert_error(a_server.post("/v1/register", data=texts), 422, "bad-input")
    assert_error(a_server.post("/v1/register", data=b"raw"), 422, "bad-input")


def test_a_client_that_goes_away_cancels_its_registration(a_server, caplog):
    body = png(np.zeros((9, 9), np.uint8))
    with caplog.at_level(logging.INFO), pytest.raises(requests.ReadTimeout):
        requests.post(
            a_server.url + "/v1/register", files=files(body), data={"steps": "900"}, timeout=0.5
        )
    with caplog.at_level(logging.INFO):
        time.sleep(1.0)
    assert "cancelled after" in caplog.text


def test_no_file_name_and_no_temporary_file_is_left(a_server, caplog, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with caplog.at_level(logging.DEBUG):
        a_server.post("/v1/register", files=files(png(np.zeros((9, 9), np.uint8))))
        a_server.post("/v1/register", files=files(b"damaged"))
    assert list(tmp_path.iterdir()) == []
    assert "patient" not in caplog.text


@pytest.mark.parametrize(("kind", "suffix"), [("affine", "h5"), ("affine", "tfm"), ("tps", "h5")])
def test_the_transform_can_be_had_as_an_itk_file(a_server, a_volume, suffix, kind, tmp_path):
    import SimpleITK

    job = order(a_server, a_volume, kind=kind, shift=3.0)
    ended(a_server, job)
    answer = a_server.get(f"/v1/registrations/{job}/transform", params={"format": suffix})
    assert answer.status_code == 200, answer.text
    path = tmp_path / f"transform.{suffix}"
    path.write_bytes(answer.content)
    transform = SimpleITK.ReadTransform(str(path))
    result = result_of(a_server, job)
    centre = a_volume.grid.centre
    expected = result.transform(centre[None])[0]
    np.testing.assert_allclose(transform.TransformPoint(centre.tolist()), expected, atol=0.05)


def test_a_transform_in_an_unknown_or_unfit_format_is_refused(a_server, a_volume):
    job = order(a_server, a_volume, kind="tps")
    ended(a_server, job)
    path = f"/v1/registrations/{job}/transform"
    assert_error(a_server.get(path, params={"format": "exe"}), 422, "bad-input")
    assert_error(a_server.get(path, params={"format": "tfm"}), 422, "bad-file")


def test_eight_clients_at_once_all_get_their_own_answer(a_server, a_volume):
    shifts: dict[int, float] = {}

    def register(number: int) -> None:
        job = order(a_server, a_volume, shift=float(number), steps=2)
        ended(a_server, job)
        result = result_of(a_server, job)
        shifts[number] = result.transform(np.zeros((1, 3)))[0, 0]

    threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shifts == {number: float(number) for number in range(8)}


def test_the_document_states_the_patterns(a_server):
    document = a_server.get("/openapi.json").json()
    text = json.dumps(document)
    assert "^[0-9a-f]{64}$" in text
    assert "^[0-9a-f]{32}$" in text
    assert {"/v1/register", "/v1/registrations/{job_id}/events"} <= set(document["paths"])


def test_a_torn_connection_does_no_harm(a_server, a_picture):
    header, _ = wire.encode_image(a_picture)
    host, port = a_server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        start = f"PUT /v1/images/{'0' * 64} HTTP/1.1\r\nHost: {host}:{port}\r\n"
        lines = f"{wire.IMAGE_HEADER}: {header}\r\nContent-Length: 1800\r\n\r\nabc"
        connection.sendall((start + lines).encode())
    time.sleep(0.1)
    assert a_server.get("/healthz").ok
