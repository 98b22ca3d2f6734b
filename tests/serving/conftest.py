"""A real server on a free port whose model is a stand-in that the tests control."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import requests

from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import RegistrationRequest, RegistrationResult
from retreg_server.serving.metrics import Metrics
from retreg_server.serving.settings import Settings
from retreg_server.serving.workers.executor import LocalExecutor

sys.path.insert(0, str(Path(__file__).parent))  # the worker process imports the stand-in by name

import fake_engine
from served import served

FRESH = Settings(reuse_results=False, stop_grace_s=1)  # every request of a test reaches the model


@dataclass(frozen=True)
class FakeModel:
    """What reached the stand-in in the worker process."""

    folder: Path

    @property
    def requests(self) -> list[RegistrationRequest]:
        """In the order in which they were begun, with the options completed."""
        return fake_engine.remembered(self.folder)

    def result(self, request: RegistrationRequest) -> RegistrationResult:
        """The answer when nothing goes wrong."""
        return fake_engine.fake_result(request)


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

    def delete(self, path: str, **kwargs) -> requests.Response:
        return requests.delete(self.url + path, timeout=10, **kwargs)


@contextmanager
def running_server(settings: Settings) -> Iterator[Running]:
    """Start a server on a free port, wait until it is ready, and stop it afterwards."""
    with TemporaryDirectory() as folder:

        def executor(settings: Settings, metrics: Metrics) -> LocalExecutor:
            arguments = {"folder": folder}
            worker = "fake_engine:fake_worker"
            memory, count = settings.worker_memory_bytes, metrics.restarts.inc
            return LocalExecutor(settings.devices, count, worker, arguments, memory)

        with served(settings, executor) as url:
            yield Running(url, FakeModel(Path(folder)))


@pytest.fixture(scope="session")
def a_server() -> Iterator[Running]:
    """A server with everyday settings, shared by the tests."""
    with running_server(FRESH) as server:
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
