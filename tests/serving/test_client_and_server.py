"""The Python client against a real server."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import requests

from retreg import wire
from retreg.client import Client
from retreg.errors import OptionError, RegistrationError, ServerError
from retreg.image import Image
from retreg.messages import RegistrationRequest
from retreg.transforms import Affine
from retreg_server.serving.settings import Settings


@pytest.fixture
def a_client(a_server):
    with Client(a_server.url) as client:
        yield client


def test_a_pair_is_registered(a_client, a_volume):
    result = a_client.register(a_volume, a_volume, shift=4.0)
    np.testing.assert_allclose(result.transform(np.ones((2, 3))), [[5, 1, 1]] * 2)
    assert result.quality.verdict == "accept"
    assert result.quality.numbers["worst"] == float("inf")
    assert len(result.fixed_keypoints) == 64


@pytest.mark.parametrize("encoding", wire.ENCODINGS)
def test_the_server_sees_what_the_client_has(a_server, a_picture, encoding):
    with Client(a_server.url, encoding=encoding) as client:
        client.register(a_picture, a_picture, model="auto-fundus")
    np.testing.assert_array_equal(a_server.model.requests[-1].fixed.array, a_picture.array)


def test_the_spline_of_the_client_is_that_of_the_server(a_client, a_server, a_volume):
    result = a_client.register(a_volume, a_volume, kind="tps", smoothing=0.1)
    points = np.random.default_rng(0).uniform(-80, 80, (100, 3))
    request = RegistrationRequest(a_volume, a_volume, "m", {"kind": "tps", "smoothing": 0.1})
    expected = a_server.model.result(request).transform(points)
    np.testing.assert_allclose(result.transform(points), expected, atol=1e-4)


def test_the_model_is_chosen_from_the_images(a_client, a_server, a_picture, a_volume):
    a_client.register(a_picture, a_picture)
    assert a_server.model.requests[-1].model == "auto-fundus"
    a_client.register(a_volume, a_volume)
    assert a_server.model.requests[-1].model == "auto-brain"


def test_options_that_are_none_are_dropped(a_client, a_server, a_volume):
    a_client.register(a_volume, a_volume, shift=None, steps=1, smoothing=float("inf"))
    options = a_server.model.requests[-1].options
    assert (options["shift"], options["steps"], options["smoothing"]) == (0.0, 1, float("inf"))


def test_progress_tells_the_stages_in_order_and_ends_with_done(a_client, a_volume):
    told = []
    a_client.register(a_volume, a_volume, progress=lambda *stage: told.append(stage), steps=10)
    names = [name for name, _ in told]
    assert names[:2] == ["sending the fixed image", "sending the moving image"]
    assert "working" in names
    assert told[-1] == ("done", 1.0)
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_what_progress_raises_comes_out_and_cancels_the_job(a_client, a_volume, kind):
    def stop(stage: str, _fraction: float) -> None:
        if stage == "working":
            raise kind("enough")

    start = time.monotonic()
    with pytest.raises(kind):
        a_client.register(a_volume, a_volume, progress=stop, steps=900)
    a_client.register(a_volume, a_volume)  # waits for the worker, so the long job is over
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"model": "auto-magic"}, OptionError, "not offered"),
        ({"unheard_of": 1}, OptionError, "no option"),
        ({"kind": "nothing"}, RegistrationError, "looks alike"),
        ({"kind": "crash"}, ServerError, "failed unexpectedly"),
    ],
)
def test_errors_keep_their_class_and_sentence(a_client, a_volume, options, error, sentence):
    with pytest.raises(error, match=sentence):
        a_client.register(a_volume, a_volume, **options)


def test_an_image_is_sent_once(a_client, a_volume, monkeypatch):
    fresh = Image(a_volume.array + 1, a_volume.grid)
    sent = []
    original = requests.Session.request

    def noting(self, method, url, **kwargs):
        sent.append(method)
        return original(self, method, url, **kwargs)

    monkeypatch.setattr(requests.Session, "request", noting)
    a_client.register(fresh, a_volume)
    a_client.register(fresh, fresh)
    assert sent.count("PUT") <= 2
    assert "PUT" not in sent[sent.index("POST") :]


def test_a_forgotten_image_is_sent_again(start_server, a_volume):
    other = Image(a_volume.array + 1, a_volume.grid)
    with start_server(Settings()) as server, Client(server.url) as client:
        client.register(a_volume, other)
        header, body = wire.encode_image(other)
        forget = f"{server.url}/v1/images/{wire.image_address(header, body)}"
        asked = []

        def meddle(stage: str, _fraction: float) -> None:
            asked.append(stage)
            if stage == "waiting for the server":
                return
            if len(asked) == 2:  # the client has asked for the first image and believes it there
                requests.delete(forget, timeout=5)

        client.register(other, a_volume, progress=meddle)
        assert "sending the fixed image" in asked[asked.index("waiting for the server") :]


def test_a_busy_server_is_waited_for(start_server, a_volume):
    with start_server(Settings(queue_size=0)) as server:
        told = []

        def first() -> None:
            with Client(server.url) as client:
                client.register(a_volume, a_volume, steps=50)

        thread = threading.Thread(target=first)
        thread.start()
        while not server.model.requests:
            time.sleep(0.01)
        with Client(server.url) as client:
            client.register(a_volume, a_volume, progress=lambda *stage: told.append(stage))
        thread.join()
    assert ("waiting for the server", 0.0) in told


def test_a_server_that_stays_busy_is_an_error_in_words(start_server, a_volume):
    with start_server(Settings(queue_size=0)) as server:
        with Client(server.url) as client:
            thread = threading.Thread(
                target=lambda: client.register(a_volume, a_volume, steps=100)
            )
            thread.start()
            while not server.model.requests:
                time.sleep(0.01)
        with (
            Client(server.url, busy_timeout_s=0) as impatient,
            pytest.raises(ServerError, match="waiting already"),
        ):
            impatient.register(a_volume, a_volume)
        thread.join()


def test_the_server_hears_of_masks(a_client, a_server, a_volume):
    mask = Image((a_volume.array > 0).astype(np.uint8), a_volume.grid)
    a_client.register(a_volume, a_volume, fixed_mask=mask)
    request = a_server.model.requests[-1]
    np.testing.assert_array_equal(request.fixed.counted, a_volume.array[0] > 0)
    assert request.moving.counted is None


def test_the_server_hears_of_an_initial_transform(a_client, a_server, a_volume):
    matrix = np.diag([1.0, 1.0, -1.0, 1.0])
    matrix[0, 3] = 4.5
    a_client.register(a_volume, a_volume, initial=Affine(matrix))
    a_client.register(a_volume, a_volume)  # not the answer that is kept
    led, free = a_server.model.requests[-2:]
    np.testing.assert_array_equal(led.initial.moving_from_fixed, matrix)
    assert free.initial is None
