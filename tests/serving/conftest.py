"""A real server on a free port whose model is a stand-in that the tests control."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
import requests
import uvicorn

from retreg.errors import RegistrationError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, ModelInfo, Option, RegistrationRequest, RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Affine, ThinPlateSpline
from retreg_server.commands.serve import listening_socket
from retreg_server.registration.base import Report
from retreg_server.serving.app import create_app
from retreg_server.serving.settings import Settings

SHIFT = Option("shift", "Shift along x in mm", 0.0)
STEPS = Option("steps", "Steps of 20 ms", 0, minimum=0, maximum=1000)
KIND = Option("kind", "What to do", "affine", choices=("affine", "tps", "nothing", "crash"))
MIRROR = Option("mirror", "A switch", False)
SMOOTHING = Option("smoothing", "Smoothing", 0.0, minimum=0.0)
OPTIONS = (SHIFT, STEPS, KIND, MIRROR, SMOOTHING)


def fake_models() -> tuple[ModelInfo, ...]:
    """Stand-ins under the names of the default models."""
    return (
        ModelInfo("auto-fundus", "Pictures", ("picture",), ("affine",), OPTIONS, "Nobody 2026"),
        ModelInfo("auto-brain", "Volumes", ("volume",), ("affine", "tps"), OPTIONS),
    )


@dataclass
class FakeModel:
    """Shifts along x, fails or takes its time, as the options say; remembers its requests."""

    requests: list[RegistrationRequest] = field(default_factory=list)

    def __call__(self, request: RegistrationRequest, report: Report) -> RegistrationResult:
        self.requests.append(request)
        options = request.options
        steps = int(options.get("steps", 0))
        for step in range(steps):
            report("working", step / steps)
            time.sleep(0.02)
        if options.get("kind") == "nothing":
            raise RegistrationError("Nothing in the two images looks alike.")
        if options.get("kind") == "crash":
            raise KeyError("secret name of a patient")
        return self.result(request)

    def result(self, request: RegistrationRequest) -> RegistrationResult:
        """The answer when nothing goes wrong."""
        matrix = np.eye(4)
        matrix[0, 3] = float(request.options.get("shift", 0.0))
        points = np.random.default_rng(1).uniform(-80, 80, (64, 3))
        moving = points + matrix[:3, 3] + np.sin(points / 20)
        keypoints = [Keypoints(each, np.ones(64), np.ones(64, bool)) for each in (points, moving)]
        smoothing = float(request.options.get("smoothing", 0.0))
        is_spline = request.options.get("kind") == "tps"
        transform = ThinPlateSpline(points, moving, smoothing) if is_spline else Affine(matrix)
        quality = Quality({"nmi_after": 1.25, "worst": float("inf")}, "accept", "It looks right.")
        provenance = {"model": request.model, "options": dict(request.options)}
        return RegistrationResult(transform, *keypoints, quality, provenance)


@dataclass
class Running:
    """A server that runs in a thread of this process."""

    url: str
    model: FakeModel

    def get(self, path: str, **kwargs) -> requests.Response:
        return requests.get(self.url + path, timeout=10, **kwargs)

    def post(self, path: str, **kwargs) -> requests.Response:
        return requests.post(self.url + path, timeout=30, **kwargs)

    def put(self, path: str, **kwargs) -> requests.Response:
        return requests.put(self.url + path, timeout=10, **kwargs)


@contextmanager
def running_server(settings: Settings) -> Iterator[Running]:
    """Start a server on a free port, wait until it is ready, and stop it afterwards."""
    model = FakeModel()
    ready = threading.Event()
    listener = listening_socket("127.0.0.1", 0)
    app = create_app(settings, run=model, load_models=fake_models, on_ready=ready.set)
    config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert ready.wait(20)
        yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}", model)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="session")
def a_server() -> Iterator[Running]:
    """A server with everyday settings, shared by the tests."""
    with running_server(Settings()) as server:
        yield server


@pytest.fixture(scope="session")
def start_server() -> Callable[[Settings], AbstractContextManager[Running]]:
    """Starts a server with the settings of one test."""
    return running_server


@pytest.fixture
def a_volume() -> Image:
    """A small oblique int16 volume."""
    matrix = np.array(
        [[0.8, 0.6, 0, -20], [-0.6, 0.8, 0, 5], [0, 0, -2.5, 7], [0, 0, 0, 1]], dtype=float
    )
    array = np.random.default_rng(2).integers(-900, 900, (1, 6, 8, 10)).astype(np.int16)
    return Image(array, Grid((10, 8, 6), matrix))


@pytest.fixture
def a_picture() -> Image:
    """A small colour picture."""
    array = np.random.default_rng(3).integers(0, 256, (3, 1, 20, 30)).astype(np.uint8)
    return Image(array, Grid.of_picture(30, 20))
