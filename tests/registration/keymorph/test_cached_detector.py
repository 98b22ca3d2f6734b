"""An image is shown to a keypoint network once, whoever asks for it again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from retreg.errors import RegistrationError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.progress import no_progress
from retreg.quality import Quality
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.registration import engine
from retreg_server.registration.keymorph.cached_detector import CachedKeypointDetector
from retreg_server.registration.keymorph.detectors import FundusKeypointDetector, KeypointDetections
from retreg_server.registration.networks.weights import is_shipped
from retreg_server.serving.workers.messages import Message, SharedImage
from retreg_server.serving.workers.model_worker import ModelWorker

SIDE = 8


class CountingDetector:
    """Looks like a network that takes its time; each detection holds SIDE^3 floats."""

    def __init__(self):
        self.seen: list[tuple[bool, str]] = []

    def __call__(self, image: Image, role: str, second: bool, device: str) -> KeypointDetections:
        if not image.array.any():
            raise RegistrationError(f"The {role} image shows nothing.")
        self.seen.append((second, device))
        return KeypointDetections(torch.zeros(1, 1, SIDE, SIDE, SIDE), np.eye(4), [])


def an_image(number: int, matrix=None, dtype=np.int16) -> Image:
    array = np.full((1, 3, 4, 5), number, dtype)
    return Image(array, Grid((5, 4, 3), np.eye(4) if matrix is None else matrix))


def test_an_image_is_looked_at_once_wherever_it_comes_from():
    counting = CountingDetector()
    detect = CachedKeypointDetector(counting)
    first = detect(an_image(1), "fixed", False, "cpu")
    assert detect(an_image(1), "moving", False, "cpu") is first
    assert detect(an_image(1), "fixed", True, "cpu") is not first
    assert detect(an_image(1), "fixed", False, "cuda") is not first
    assert counting.seen == [(False, "cpu"), (True, "cpu"), (False, "cuda")]


@pytest.mark.parametrize(
    "other",
    [
        an_image(2),
        an_image(1, np.diag([1, 1, 2.0, 1])),
        an_image(1, dtype=np.uint16),
        Image(np.full((1, 4, 3, 5), 1, np.int16), Grid((5, 3, 4), np.eye(4))),
    ],
    ids=["voxels", "geometry", "type", "shape"],
)
def test_another_image_is_looked_at_anew(other):
    counting = CountingDetector()
    detect = CachedKeypointDetector(counting)
    for image in (an_image(1), other):
        detect(image, "fixed", False, "cpu")
    assert len(counting.seen) == 2


@pytest.mark.parametrize("limits", [{"most_detections": 3}, {"most_bytes": 3 * 4 * SIDE**3}])
def test_what_was_not_asked_for_the_longest_is_forgotten(limits):
    counting = CountingDetector()
    detect = CachedKeypointDetector(counting, **limits)
    for number in (1, 2, 3, 1, 4):
        detect(an_image(number), "fixed", False, "cpu")
    assert detect.nbytes == 3 * 4 * SIDE**3
    for number in (1, 3, 4):
        detect(an_image(number), "fixed", False, "cpu")
    assert len(counting.seen) == 4
    detect(an_image(2), "fixed", False, "cpu")
    assert len(counting.seen) == 5


def test_an_image_that_shows_nothing_is_refused_each_time():
    detect = CachedKeypointDetector(CountingDetector())
    for role in ("fixed", "moving"):
        with pytest.raises(RegistrationError, match=f"The {role} image"):
            detect(an_image(0), role, False, "cpu")


@pytest.mark.skipif(not is_shipped("keymorph-fundus"), reason="needs its weights")
def test_the_second_registration_in_a_worker_runs_the_network_on_the_new_image_only(monkeypatch):
    monkeypatch.setattr(engine, "assess", lambda *_: Quality({}, "check", "Not judged."))
    worker, pictures = ModelWorker(), [make_fundus_pair(seed, size=256) for seed in (81, 82)]
    fixed, moving, other = pictures[0].fixed, pictures[0].moving, pictures[1].fixed
    net, _ = FundusKeypointDetector()._loaded
    runs, forward = [], type(net).forward
    monkeypatch.setattr(
        type(net), "forward", lambda self, views: runs.append(len(views)) or forward(self, views)
    )

    def runs_for(*images: Image) -> int:
        before = len(runs)
        packed = [SharedImage.of(replace(image)) for image in images]
        head = {"model": "keymorph-fundus", "options": {"device": "cpu"}}
        head["headers"] = [each.header for each in packed]
        worker.answer(Message(head, tuple(each.voxels for each in packed)), no_progress)
        return len(runs) - before

    both = runs_for(fixed, moving)
    assert both > 0
    assert runs_for(fixed, other) == both / 2
    assert runs_for(fixed, moving) == 0
