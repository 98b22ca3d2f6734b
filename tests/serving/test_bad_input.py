"""Bad input over HTTP: each gets a status and a sentence, and the server lives on."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import struct
import zlib
from functools import cache

import numpy as np
import pytest
import requests
import zstandard
from PIL import Image as Picture

from retreg import wire

GOOD = {
    "size": [4, 4, 4],
    "world_from_index": np.eye(4).tolist(),
    "channels": 1,
    "dtype": "uint8",
    "encoding": "identity",
}
FLAT = np.diag([1.0, 1.0, 0.0, 1.0]).tolist()
ABSURD = np.diag([1e30, 1.0, 1.0, 1.0]).tolist()


@pytest.fixture(autouse=True)
def the_server_lives_on(a_server):
    yield
    assert a_server.get("/healthz").ok
    assert a_server.get("/readyz").ok


def put(server, header: str, body: bytes) -> requests.Response:
    address = hashlib.sha256(header.encode() + b"\n" + body).hexdigest()
    return server.put(f"/v1/images/{address}", data=body, headers={wire.IMAGE_HEADER: header})


def assert_refused(answer: requests.Response, *statuses: int) -> None:
    assert answer.status_code in statuses, answer.text
    message = answer.json()["message"]
    assert re.fullmatch(r"\w.{10,}\.", message), message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    "change",
    [
        {"world_from_index": [["NaN", 0, 0, 0], *np.eye(4).tolist()[1:]]},
        {"world_from_index": [["Infinity", 0, 0, 0], *np.eye(4).tolist()[1:]]},
        {"world_from_index": FLAT},
        {"world_from_index": ABSURD},
        {"world_from_index": [[1, 2], [3, 4]]},
        {"world_from_index": "identity"},
        {"size": [20000, 20000, 20000]},
        {"size": [0, 4, 4]},
        {"size": [-4, -4, 4]},
        {"size": [2**62, 4, 4]},
        {"size": [4, 4]},
        {"size": [4.5, 4, 4]},
        {"channels": 5},
        {"channels": 0},
        {"dtype": "object"},
        {"dtype": "complex64"},
        {"dtype": "ÿ"},
        {"encoding": "gzip"},
        {"encoding": "../../identity"},
        {"encoding": None},
    ],
)
def test_a_header_that_is_no_image_is_refused(a_server, change):
    assert_refused(put(a_server, json.dumps(GOOD | change), bytes(64)), 422)


@pytest.mark.parametrize("encoding", ["zlib+shuffle", "zstd", "zstd+shuffle"])
def test_a_bomb_is_refused_without_being_inflated(a_server, encoding):
    zeros = bytes(2**26)
    is_zlib = encoding.startswith("zlib")
    bomb = zlib.compress(zeros) if is_zlib else zstandard.compress(zeros)
    assert_refused(put(a_server, json.dumps(GOOD | {"encoding": encoding}), bomb[:1000]), 422)
    if len(bomb) < 1000:
        assert_refused(put(a_server, json.dumps(GOOD | {"encoding": encoding}), bomb), 413, 422)


@pytest.mark.parametrize("encoding", ["zlib+shuffle", "zstd"])
def test_a_decoded_size_that_lies_is_refused(a_server, encoding):
    pack = zlib.compress if encoding.startswith("zlib") else zstandard.compress
    for count in (63, 65):
        header = json.dumps(GOOD | {"encoding": encoding})
        assert_refused(put(a_server, header, pack(bytes(count))), 422)


def test_one_voxel_is_an_image(a_server):
    header = json.dumps(GOOD | {"size": [1, 1, 1]})
    assert put(a_server, header, b"x").status_code == 201


def register(server, content: bytes, name: str) -> requests.Response:
    files = dict.fromkeys(("fixed", "moving"), (name, content))
    return requests.post(server.url + "/v1/register", files=files, timeout=60)


def nifti_header(*sizes: int) -> bytes:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *sizes, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)
    struct.pack_into("<8f", header, 76, *[1.0] * 8)
    struct.pack_into("<f", header, 108, 352.0)
    header[344:348] = b"n+1\0"
    return bytes(header)


@cache
def bombs() -> dict[str, bytes]:
    picture = io.BytesIO()
    Picture.new("1", (30000, 30000)).save(picture, "PNG")
    return {
        "declares 20000 cubed.nii.gz": gzip.compress(nifti_header(20000, 20000, 20000)),
        "declares 1000 cubed, holds less.nii.gz": gzip.compress(
            nifti_header(1000, 1000, 1000) + bytes(2**26), 1
        ),
        "30000 squared.png": picture.getvalue(),
        "nothing but zeros.dcm": bytes(200_000),
        "patient ünïcödé 患者.nii.gz": b"\x1f\x8b" + bytes(100),
    }


@pytest.mark.parametrize("name", list(bombs()))
def test_a_file_that_is_a_bomb_is_refused(a_server, name):
    answer = register(a_server, bombs()[name], name)
    assert_refused(answer, 422)
    assert name not in answer.text


def test_ten_thousand_sessions_leave_room_for_the_next(a_server):
    from retreg_server.serving.storage.memory_cache import MemoryCache

    cache: MemoryCache[str] = MemoryCache(10_000, 60)
    for number in range(20_000):
        cache.put(str(number), "address", 1)
    assert cache.nbytes == 10_000
    assert cache.get("19999") == "address"
    assert cache.get("0") is None
    for path in ("/session/" + "0" * 32, "/session/..%2f..%2fetc%2fpasswd"):
        assert a_server.get(path).status_code == 404
