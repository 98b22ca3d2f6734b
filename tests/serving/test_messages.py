"""Buffers that travel between processes."""

from __future__ import annotations

import multiprocessing
import threading

import numpy as np
import pytest

from retreg import wire
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.serving.workers import messages
from retreg_server.serving.workers.messages import SharedBuffer, SharedImage


@pytest.mark.parametrize("is_file", [True, False])
@pytest.mark.parametrize("nbytes", [0, 1, 70_000, 3_000_000])
def test_a_buffer_arrives_as_it_was_sent(is_file, nbytes, monkeypatch):
    monkeypatch.setattr(messages, "SMALLEST_FILE", 1 if is_file else 2**40)
    content = np.random.default_rng(0).integers(0, 255, nbytes, np.uint8).tobytes()
    here, there = multiprocessing.Pipe()
    sent = (SharedBuffer.of(content), SharedBuffer.of(b"second"))
    assert sent[1].is_file == (is_file and messages.HAS_MEMORY_FILES)
    sending = threading.Thread(target=messages.send, args=(here, {"kind": "ask", "a": [1]}, sent))
    sending.start()
    message = messages.receive(there)
    sending.join()
    assert message.head == {"kind": "ask", "a": [1]}
    assert [bytes(buffer.view) for buffer in message.buffers] == [content, b"second"]


def test_a_buffer_may_be_passed_on(monkeypatch):
    monkeypatch.setattr(messages, "SMALLEST_FILE", 1)
    here, there = multiprocessing.Pipe()
    messages.send(here, {}, [SharedBuffer.of(b"abc")])
    first = messages.receive(there).buffers
    messages.send(here, {}, first)
    del first
    assert bytes(messages.receive(there).buffers[0].view) == b"abc"


@pytest.mark.parametrize("dtype", ["<i2", ">i2", ">f4", "u1"])
def test_an_image_keeps_its_voxels_and_its_address(dtype):
    array = np.arange(3 * 60).reshape(3, 3, 4, 5).astype(dtype)
    image = Image(array, Grid((5, 4, 3), np.diag([1.0, 2.0, 3.0, 1.0])))
    packed = SharedImage.of(image)
    np.testing.assert_array_equal(packed.image.array, array)
    assert packed.address == wire.image_address(*wire.encode_image(image))
    again = SharedImage.received(packed.header, packed.voxels)
    np.testing.assert_array_equal(again.image.array, array)
    np.testing.assert_array_equal(again.image.grid.world_from_index, image.grid.world_from_index)
