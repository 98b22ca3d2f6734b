"""The module as the user meets it: the real widget on the Qt that stands in for Slicer's."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retreg import Client, Keypoints
from retreg.errors import Cancelled
from retreg.fitting import fit
from retreg.image import Image
from retreg.messages import ModelInfo, Option, RegistrationResult
from retreg.quality import Quality

SLICER_TESTS = Path(__file__).parents[1]
MODULE_FILE = SLICER_TESTS.parents[1] / "SlicerRetReg" / "RetReg.py"

FAMILIES = ("affine", "rigid", "tps")
SMOOTHING = Option("smoothing", "Smoothing of the spline", 0.1, minimum=0.0, families=("tps",))
MODELS = (
    ModelInfo(
        "volume-model",
        "Heads",
        ("volume",),
        FAMILIES,
        (
            Option("transform", "Transform", "affine", FAMILIES),
            SMOOTHING,
            Option("robust", "Mistrust outliers", True),
            Option("looks", "Looks", 4, minimum=1, maximum=9),
        ),
        citation="A. Body 2020",
    ),
    ModelInfo("other-model", "Other heads", ("volume",), ("rigid",)),
    ModelInfo("picture-model", "Eyes", ("picture",), FAMILIES, (SMOOTHING,)),
)


def result_for(options: dict[str, Any], verdict: str) -> RegistrationResult:
    """What a server would answer: shifted keypoints, one of them an outlier."""
    points = np.array([[x, y, z] for x in (1, 8) for y in (1, 9) for z in (1, 7)], dtype=float)
    moved = points + (2.0, -1.0, 0.5)
    moved[0] += (0.4, 0.0, 0.0)
    inliers = np.arange(8) > 0
    family = options.get("transform", "affine")
    transform = fit(family, points, moved, inliers.astype(float), options.get("smoothing", 0.0))
    return RegistrationResult(
        transform,
        Keypoints(points, np.linspace(0.1, 1, 8), inliers),
        Keypoints(moved, np.linspace(0.1, 1, 8), inliers),
        Quality({"agreement": 0.7, "overlap": 0.9}, verdict, "Because <it> fits."),
        {"model": "volume-model", "options": dict(options), "seconds": {"all": 1.25}},
    )


@dataclass
class FakeServer:
    """Answers in place of a server. gate: closed, it keeps the registration waiting."""

    verdict: str = "accept"
    error: Exception | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    orders: list[dict[str, Any]] = field(default_factory=list)
    images: list[tuple[Image, Image]] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def connection(self, url: str, token: str = "", ca_file: str = "") -> Any:
        from RetRegLib.server.connection import Connection

        server = self

        class FakeConnection(Connection):
            def client(self) -> Client:
                return FakeClient(server, self.url)

        return FakeConnection(url, token, ca_file)


class FakeClient(Client):
    def __init__(self, server: FakeServer, url: str) -> None:
        super().__init__(url)
        self._server = server

    def models(self) -> tuple[ModelInfo, ...]:
        return MODELS

    def cancel(self) -> None:
        self._server.cancelled.set()

    def register(self, fixed, moving, model=None, progress=None, **options):
        self._server.images.append((fixed, moving))
        self._server.orders.append({"model": model, **options})
        progress("comparing the images", 0.25)
        while not self._server.gate.wait(0.01):
            if self._server.cancelled.is_set():
                raise Cancelled("The work was cancelled.")
            progress("comparing the images", 0.25)
        if self._server.error is not None:
            raise self._server.error
        plain = {name: value for name, value in options.items() if name != "initial"}
        return result_for(plain, self._server.verdict)


@dataclass
class Window:
    """The module's widget, and what a test may do to it."""

    widget: Any
    app: Any
    server: FakeServer
    asked: list[tuple[str, str, str]]
    answer: bool = True

    @property
    def ui(self) -> Any:
        return self.widget.ui

    @property
    def panel(self) -> Any:
        return self.widget.panel

    @property
    def message(self) -> str:
        return self.ui.messageLabel.text

    def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Let the window live until condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"still waiting; the panel says: {self.message}"
            self.app.processEvents()
            time.sleep(0.002)

    def press(self, name: str) -> None:
        """Press a button as the user would: nothing happens when it is disabled."""
        getattr(self.ui, name).click()

    def connect(self, url: str = "http://127.0.0.1:1") -> None:
        """Be connected to the fake server, whose models then are known."""
        self.ui.serverAddress.text = url
        self.press("testConnectionButton")
        self.until(lambda: not self.panel.server.busy)

    def register(self) -> None:
        """Press Register and wait for the end."""
        self.press("registerButton")
        self.until(lambda: not self.panel.busy)


@pytest.fixture
def application(
    slicer: Any, scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The stand-in of Slicer around the scene."""
    pytest.importorskip("PySide6", reason="PySide6 is not installed")
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    monkeypatch.syspath_prepend(str(SLICER_TESTS))
    from stand_in.application import install

    assert scene
    return install(monkeypatch, slicer, tmp_path)


@pytest.fixture
def module(application: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """RetReg.py as Slicer's loader imports it."""
    assert application
    spec = importlib.util.spec_from_file_location("RetReg", MODULE_FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "RetReg", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make_window(
    module: Any, application: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> Iterator[Callable[[], Window]]:
    """Opens the module's widget; closed at the end of the test, when no exception has escaped."""
    import qt
    from stand_in.widgets import WIDGETS

    from retreg.reachability import Step
    from RetRegLib import logic
    from RetRegLib.panel import dialogs, server_section

    opened: list[Window] = []

    def open_window() -> Window:
        parent = WIDGETS["qMRMLWidget"]()
        qt.QVBoxLayout(parent)
        widget = module.RetRegWidget(parent)
        window = Window(widget, application, FakeServer(), [])

        def ask(title: str, text: str, agree: str) -> bool:
            window.asked.append((title, text, agree))
            return window.answer

        def steps(connection: Any, tell: Callable[[Any], None]) -> list[Any]:
            assert connection
            found = [Step("address", True, "fine"), Step("models", True, "three")]
            for step in found:
                tell(step)
            return found

        monkeypatch.setattr(dialogs, "ask", ask)
        monkeypatch.setattr(logic, "Connection", window.server.connection)
        monkeypatch.setattr(server_section, "test_connection", steps)
        widget.setup()
        parent.resize(440, 1000)
        parent.setVisible(True)
        opened.append(window)
        return window

    yield open_window
    for window in opened:
        window.server.gate.set()
        window.widget.cleanup()
        window.widget.parent.setVisible(False)
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture
def window(make_window: Callable[[], Window]) -> Window:
    """The module, opened."""
    return make_window()


@pytest.fixture
def volumes(slicer: Any, scene: Any) -> tuple[Any, Any]:
    """A fixed and a moving volume of 10 x 12 x 9 voxels of 1 mm."""
    rng = np.random.default_rng(0)
    made = []
    for name in ("Fixed", "Moving"):
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        slicer.util.updateVolumeFromArray(node, rng.random((9, 12, 10), dtype=np.float32))
        made.append(node)
    return made[0], made[1]


@pytest.fixture
def ready(window: Window, volumes: tuple[Any, Any]) -> Window:
    """Connected, with both images chosen."""
    window.connect()
    window.ui.fixedSelector.setCurrentNode(volumes[0])
    window.ui.movingSelector.setCurrentNode(volumes[1])
    assert window.ui.registerButton.enabled, window.ui.registerButton.toolTip
    return window
