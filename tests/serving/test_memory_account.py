"""All images of a server are one account: what arrives, is decoded, waits, and is kept."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import socket
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import requests
from fastapi import Request
from PIL import Image as Picture

from retreg import wire
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.serving.errors import ApiError
from retreg_server.serving.http.forms import MAX_FILES, Form, FormLimits, read_form
from retreg_server.serving.memory_account import Account
from retreg_server.serving.settings import Settings
from retreg_server.serving.workers.messages import BufferWriter

FRESH = Settings(reuse_results=False)


def nothing_to_give() -> bool:
    return False


def volume(side: int, value: int = 0) -> Image:
    return Image(np.full((1, side, side, side), value, np.int16), Grid((side,) * 3, np.eye(4)))


def put(server, image: Image, encoding: wire.Encoding = "identity") -> requests.Response:
    header, body = wire.encode_image(image, encoding)
    path = f"/v1/images/{wire.image_address(header, body)}"
    return server.put(path, data=body, headers={wire.IMAGE_HEADER: header})


def claimed(server) -> float:
    lines = server.get("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("retreg_image_bytes_claimed ")]
    return float(found[0].split()[1])


def mask_file(mask: Image) -> bytes:
    import nibabel

    return gzip.compress(nibabel.Nifti1Image(mask.array[0].T, np.eye(4)).to_bytes())


def nifti(shape: tuple[int, ...], dtype: str = "int16") -> bytes:
    """A file that decodes to much more than it has."""
    import nibabel

    return gzip.compress(nibabel.Nifti1Image(np.zeros(shape, dtype), np.eye(4)).to_bytes(), 1)


def test_what_is_claimed_returns_when_nothing_holds_the_claim():
    account = Account(100, nothing_to_give)
    first = account.claim(60)
    with pytest.raises(ApiError, match="full of images") as refusal:
        account.claim(50)
    assert refusal.value.status == 503
    assert int(refusal.value.headers["Retry-After"]) >= 1
    writer = BufferWriter(account.claim())
    writer.write(bytes(30))
    with pytest.raises(ApiError):
        writer.write(bytes(30))
    assert account.claimed == 90  # what was refused is not counted
    buffer = writer.finished()
    del writer
    assert account.claimed == 90
    del buffer, first
    assert account.claimed == 0


def test_room_is_made_by_giving_up_no_more_than_is_needed():
    kept = []
    account = Account(100, lambda: bool(kept) and kept.pop(0) is not None)
    kept += [account.claim(30) for _ in range(3)]
    assert account.claim_up_to(most=80, least=20).nbytes == 40
    assert len(kept) == 2


@pytest.mark.parametrize("door", ["chunked too long", "chunked and gone", "wrong sum", "no zlib"])
def test_a_body_that_is_refused_leaves_the_account_as_it_was(start_server, door):
    image = volume(32)
    header, body = wire.encode_image(image, "zlib+shuffle" if door == "no zlib" else "identity")
    with start_server(replace(FRESH, image_store_bytes=4 * image.array.nbytes)) as server:
        for _ in range(12):  # each would take its share for good
            path = f"{server.url}/v1/images/{'0' * 64}"
            headers = {wire.IMAGE_HEADER: header}
            if door == "chunked and gone":
                host, port = server.url.removeprefix("http://").split(":")
                head = f"PUT /v1/images/{'0' * 64} HTTP/1.1\r\nHost: {host}:{port}\r\n"
                head += f"{wire.IMAGE_HEADER}: {header}\r\nTransfer-Encoding: chunked\r\n\r\n"
                with socket.create_connection((host, int(port)), 5) as connection:
                    connection.sendall(head.encode() + b"8000\r\n" + bytes(0x8000) + b"\r\n")
            elif door == "chunked too long":
                parts = iter([body, body, body])
                assert requests.put(path, data=parts, headers=headers, timeout=9).status_code == 413
            else:
                answer = requests.put(path, data=body, headers=headers, timeout=9)
                assert answer.status_code == 422
        until = time.monotonic() + 5
        while claimed(server) and time.monotonic() < until:
            time.sleep(0.02)
        assert claimed(server) == 0
        assert put(server, image).status_code == 201
        assert claimed(server) == image.array.nbytes


def test_bodies_that_arrive_at_the_same_time_are_bounded_together(start_server):
    nbytes = volume(32).array.nbytes
    with start_server(replace(FRESH, image_store_bytes=3 * nbytes)) as server:
        host, port = server.url.removeprefix("http://").split(":")
        header, body = wire.encode_image(volume(32))
        head = f"PUT /v1/images/{'0' * 64} HTTP/1.1\r\nHost: {host}:{port}\r\n"
        head += f"{wire.IMAGE_HEADER}: {header}\r\nContent-Length: {len(body)}\r\n\r\n"
        slow = [socket.create_connection((host, int(port)), 5) for _ in range(3)]
        for each in slow:
            each.sendall(head.encode() + body[:-1])
        while claimed(server) < 3 * (nbytes - 1):
            time.sleep(0.02)
        refused = put(server, volume(32, 1))
        assert (refused.status_code, refused.json()["error"]) == (503, "busy")
        assert int(refused.headers["Retry-After"]) >= 1
        for each in slow:
            each.close()
        while claimed(server):
            time.sleep(0.02)
        assert put(server, volume(32, 1)).status_code == 201


def test_images_of_waiting_jobs_are_part_of_the_account(start_server):
    nbytes = volume(16).array.nbytes
    with start_server(replace(FRESH, image_store_bytes=2 * nbytes)) as server:
        jobs = []
        for value in range(2):
            address = put(server, volume(16, value)).json()["sha256"]
            images = {"fixed": address, "moving": address}
            message = {**images, "model": "auto-volume", "options": {"steps": 1000}}
            jobs.append(server.post("/v1/registrations", json=message).json()["id"])
        refused = put(server, volume(16, 2))
        assert (refused.status_code, refused.json()["error"]) == (503, "busy")
        for job in jobs:
            server.delete(f"/v1/registrations/{job}")
        until = time.monotonic() + 5
        while not put(server, volume(16, 2)).ok:  # what was kept for a job has made way
            assert time.monotonic() < until
        assert claimed(server) <= 2 * nbytes


def test_an_image_with_a_mask_is_part_of_the_account_and_told_once(start_server, caplog):
    files = dict.fromkeys(("fixed", "moving"), ("a.nii.gz", nifti((16, 16, 16))))
    drawn = Image(np.ones((1, 16, 16, 16), np.uint8), volume(16).grid)
    files["fixed_mask"] = ("m.nii.gz", mask_file(drawn))
    with start_server(FRESH) as server, caplog.at_level(logging.INFO, "retreg_server"):
        answer = server.post("/v1/register", files=files, data={"model": "auto-volume"})
        assert answer.status_code == 200, answer.text
        told = [record.image for record in caplog.records if getattr(record, "act", "") == "sent"]
        assert len(told) == len(set(told)) == 2
        assert claimed(server) == 2 * volume(16).array.nbytes + 16**3  # a byte a voxel of the mask


@pytest.mark.parametrize("files", [2, 40])
def test_the_files_of_a_series_lie_in_one_buffer_in_their_order(files):
    sent = [bytes([number]) * (1 + number * 1000) for number in range(files)]
    names = [f"{number}.dcm" for number in range(files)]
    form = read(
        [("image", (name, content)) for name, content in zip(names, sent, strict=True)]
        + [("label", ("other.png", b"in between")), ("frame", (None, "3")),
           ("image", ("last", b"the last"))]
    )  # fmt: skip
    image = form.files["image"]
    assert image.names == [*names, "last"]
    assert image.sizes == [*map(len, sent), 8]
    assert bytes(image.content.view) == b"".join(sent) + b"the last"
    assert bytes(form.files["label"].content.view) == b"in between"
    assert form.fields == {"frame": "3"}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([("a", ("a.dcm", b""))] * (MAX_FILES + 1), f"more than {MAX_FILES} files"),
        ([("a", (None, "1")), ("a", (None, "2"))], "same name"),
        ([("a", (None, "1")), ("a", ("a.png", b"1"))], "same name"),
        ([("a", ("a.png", b"1")), ("a", (None, "1"))], "same name"),
    ],
)
def test_a_form_that_says_too_much_is_refused(parts, words):
    with pytest.raises(ApiError, match=words) as refusal:
        read(parts)
    assert refusal.value.status == 400


def read(parts: list) -> Form:
    """What is read of a form that the parts are sent in."""
    sent = requests.Request("POST", "http://a", files=parts).prepare()
    headers = [(b"content-type", sent.headers["Content-Type"].encode())]

    async def receive() -> dict:
        return {"type": "http.request", "body": sent.body}

    request = Request({"type": "http", "headers": headers}, receive)
    account = Account(2**20, nothing_to_give)
    return asyncio.run(read_form(request, FormLimits(4, 100), account))


@pytest.mark.parametrize("door", ["/v1/register", "/infer/auto-volume", "/session/", "/v1/images"])
def test_an_image_that_would_not_fit_is_refused_before_it_is_decoded(start_server, door):
    limit = 2 * 2**20
    large = (128, 128, 65)  # 2.1 MB as int16; a pair must fit
    with start_server(replace(FRESH, image_store_bytes=2 * limit)) as server:
        if door == "/v1/images":
            image = Image(np.zeros((1, *large[::-1]), np.int16), Grid(large, np.eye(4)))
            answer = put(server, image, "zlib+shuffle")
        else:
            names = {"/v1/register": ("fixed", "moving"), "/session/": ("files",)}
            files = {
                name: ("a.nii.gz", nifti(large)) for name in names.get(door, ("file", "label"))
            }
            send = server.put if door == "/session/" else server.post
            answer = send(door, files=files)
        assert answer.status_code == 422, answer.text
        assert "at most" in answer.json()["message"]
        assert claimed(server) == 0


def test_a_picture_that_would_not_fit_is_refused_before_it_is_decoded(start_server):
    bomb = io.BytesIO()
    Picture.new("L", (3000, 1000)).save(bomb, "PNG")
    with start_server(replace(FRESH, image_store_bytes=4 * 2**20)) as server:
        answer = server.put("/session/", files={"files": ("a.png", bomb.getvalue())})
    assert answer.status_code == 422
    assert "at most 2 million" in answer.json()["message"]


def test_bombs_of_twelve_clients_stay_within_the_limit_and_a_small_pair_is_answered(start_server):
    limit = 8 * 2**20
    bomb, small = nifti((128, 128, 100)), nifti((8, 8, 8))  # 3.3 MB each, 8 kB as they come
    with start_server(replace(FRESH, image_store_bytes=limit, keep_s=1e6)) as server:
        most, done = [0.0], threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                most.append(claimed(server))

        def attack(number: int) -> int:
            files = dict.fromkeys(("fixed", "moving"), ("a.nii.gz", bomb))
            data = {"shift": str(number), "steps": "5", "model": "auto-volume"}
            return server.post("/v1/register", files=files, data=data).status_code

        with ThreadPoolExecutor(13) as pool:
            pool.submit(watch)
            try:
                attacks = [pool.submit(attack, number) for number in range(12)]
                files = dict.fromkeys(("fixed", "moving"), ("a.nii.gz", small))
                with requests.Session() as polite:
                    polite.mount("http://", FromAddress("127.0.0.2"))
                    url, data = f"{server.url}/v1/register", {"model": "auto-volume"}
                    answer = polite.post(url, files=files, data=data, timeout=30)
                statuses = [each.result() for each in attacks]
            finally:
                done.set()
        assert answer.status_code == 200, answer.text
        assert set(statuses) <= {200, 429, 503}
        assert 200 in statuses
        assert max(most) <= limit
        kept = json.loads(server.get("/v1/info").text)["max_image_bytes"]
        assert kept == limit // 2


class FromAddress(requests.adapters.HTTPAdapter):
    """Sends from another address of this machine, which makes another client of it."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args, **more) -> None:
        super().init_poolmanager(*args, source_address=(self._address, 0), **more)


def test_a_deflated_body_is_counted_as_what_it_becomes(start_server):
    header = json.loads(wire.image_header(volume(64)))
    header["encoding"] = "zlib+shuffle"
    text = json.dumps(header)
    body = zlib.compress(bytes(volume(64).array.nbytes))
    path = f"/v1/images/{wire.image_address(text, body)}"
    with start_server(FRESH) as server:
        assert server.put(path, data=body, headers={wire.IMAGE_HEADER: text}).status_code == 201
        assert claimed(server) == volume(64).array.nbytes
