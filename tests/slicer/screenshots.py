"""Draws the pictures of the Slicer module in docs/images: `make screenshots`.

The panel is the real one on the Qt that stands in for Slicer's; the slice views are Slicer's own,
drawn offscreen; the results come from the local server that the panel's button starts.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
IMAGES = ROOT / "docs" / "images"
PATIENCE_S = 180.0
PANEL_WIDTH = 430
SHOT = 360
CAPTION = 26
INK, PAPER = (40, 40, 40), (255, 255, 255)

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("QT_LOGGING_RULES", "*.debug=false")
sys.path[:0] = [str(HERE), str(ROOT / "SlicerRetReg")]


class Slicer:
    """As much of the application as a picture needs: a scene, the module, and a slice view."""

    def __init__(self, folder: Path) -> None:
        import slicer
        from bare_scene import bare_scene
        from slice_shot import SliceShot
        from stand_in.application import install
        from stand_in.widgets import WIDGETS

        self.patch = pytest.MonkeyPatch()
        self.stack = ExitStack()
        self.scene, logic = self.stack.enter_context(bare_scene(slicer))
        self.app = install(self.patch, slicer, folder)
        self.view = SliceShot(self.scene, logic, (SHOT, SHOT))
        self.parent = WIDGETS["qMRMLWidget"]()
        import qt

        qt.QVBoxLayout(self.parent).setContentsMargins(4, 4, 4, 4)
        self.widget = _module().RetRegWidget(self.parent)
        self.widget.setup()
        self.parent.setVisible(True)

    @property
    def ui(self) -> Any:
        return self.widget.ui

    def until(self, condition: Callable[[], bool]) -> None:
        """Let the window live until condition holds."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end:
                raise SystemExit(f"Nothing happened for {PATIENCE_S:g} s: {self.said}")
            self.app.processEvents()
            time.sleep(0.01)

    @property
    def said(self) -> str:
        return f"{self.ui.messageLabel.text} {self.ui.serverStatus.text}"

    def load(self, pair: Any, names: tuple[str, str]) -> None:
        """Put a pair into the scene and choose it."""
        from RetRegLib.scene.volumes import volume_from_image

        images = (pair.fixed, pair.moving)
        self.fixed, self.moving = (
            volume_from_image(image, name, self.scene)
            for image, name in zip(images, names, strict=True)
        )
        self.ui.fixedSelector.setCurrentNode(self.fixed)
        self.ui.movingSelector.setCurrentNode(self.moving)

    def panel_picture(self, name: str) -> Picture.Image:
        """Save the panel as it is, without the empty space below it."""
        self.parent.resize(PANEL_WIDTH, 10)
        for _ in range(5):
            self.app.processEvents()
        self.parent.resize(PANEL_WIDTH, self.parent.sizeHint().height())
        for _ in range(5):
            self.app.processEvents()
        path = IMAGES / f"slicer-panel-{name}.png"
        self.parent.grab().save(str(path))
        picture = Picture.open(path).convert("RGB")
        save(picture, path.name)
        return picture

    def shot(self, opacity: float = 0.5, **what: Any) -> Picture.Image:
        """The slice view with the moving image over the fixed one."""
        whole = {"background": self.fixed, "foreground": self.moving, "opacity": opacity} | what
        return Picture.fromarray(self.view.pixels(**whole))


def _module() -> Any:
    spec = importlib.util.spec_from_file_location("RetReg", ROOT / "SlicerRetReg" / "RetReg.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["RetReg"] = module
    spec.loader.exec_module(module)
    return module


def save(picture: Picture.Image, name: str) -> None:
    """As PNG with at most 256 colours, which keeps the repository small."""
    small = picture.quantize(256, dither=Picture.Dither.FLOYDSTEINBERG)
    small.save(IMAGES / name, optimize=True)


def captioned(pictures: dict[str, Picture.Image], columns: int = 2) -> Picture.Image:
    """Pictures of one size in rows, each with its caption above."""
    font = ImageFont.load_default(15)
    rows = -(-len(pictures) // columns)
    out = Picture.new("RGB", (columns * (SHOT + 8) - 8, rows * (SHOT + CAPTION)), PAPER)
    for number, (caption, picture) in enumerate(pictures.items()):
        left = number % columns * (SHOT + 8)
        top = number // columns * (SHOT + CAPTION)
        ImageDraw.Draw(out).text((left + 2, top + 4), caption, INK, font)
        out.paste(picture, (left, top + CAPTION))
    return out


def register(window: Slicer, model: str, family: str, picture: str = "") -> None:
    """Press Register with a model and a family; take a picture half way."""
    order, ui = window.widget.panel.order, window.ui
    names = [each.name for each in order._suitable()]
    ui.modelSelector.setCurrentIndex(names.index(model))
    ui.familySelector.setCurrentIndex(order.model.produces.index(family))
    ui.registerButton.click()
    if picture:
        window.until(lambda: ui.progressBar.maximum > 0 and ui.progressBar.value > 300)
        window.panel_picture(picture)
    window.until(lambda: not window.widget.panel.busy)
    if window.widget.panel.outcome is None:
        raise SystemExit(window.said)


def slice_pictures(window: Slicer) -> dict[str, Picture.Image]:
    """Looks at a result."""
    ui, outcome = window.ui, window.widget.panel.outcome
    if ui.keypointsCheckBox.checked:
        ui.keypointsCheckBox.click()
    after = window.shot()
    ui.checkerboardButton.click()
    board = outcome.transform.GetNodeReference("RetReg.checkerboard")
    checkerboard = window.shot(background=board, foreground=None)
    ui.fadeButton.click()
    ui.keypointsCheckBox.click()
    keypoints = window.shot(opacity=0.0)
    ui.keypointsCheckBox.click()
    ui.gridCheckBox.click()
    grid = window.shot(opacity=0.4)
    ui.gridCheckBox.click()
    return {
        "after": after,
        "checkerboard": checkerboard,
        "keypoints": keypoints,
        "grid": grid,
    }


def fundus(window: Slicer, pair: Any) -> None:
    """A colour photograph and an angiogram."""
    window.load(pair, ("Colour photograph", "Angiogram"))
    before = window.shot()
    register(window, "auto-fundus", "tps", "running")
    window.ui.refitButton.collapsed = False
    window.ui.serverButton.collapsed = True
    panel = window.panel_picture("finished")
    found = slice_pictures(window)
    pictures = {
        "Before: angiogram over photograph": before,
        "After": found["after"],
        "Keypoints of both images": found["keypoints"],
        "Grid of the transform": found["grid"],
    }
    save(captioned(pictures), "slicer-fundus.png")
    both = Picture.new("RGB", (panel.width + SHOT + 12, max(panel.height, 2 * SHOT + 8)), PAPER)
    both.paste(panel, (0, 0))
    both.paste(found["after"], (panel.width + 12, 0))
    both.paste(found["keypoints"], (panel.width + 12, SHOT + 8))
    save(both, "slicer-panel.png")
    save(found["checkerboard"], "slicer-after.png")


def head(window: Slicer, pair: Any) -> None:
    """Two contrasts of a head."""
    window.load(pair, ("Head T1", "Head T2"))
    before = window.shot()
    register(window, "auto-brain", "affine")
    found = slice_pictures(window)
    pictures = {
        "Before: T2 over T1": before,
        "After: T1 and T2 in turn": found["checkerboard"],
        "Keypoints of both images": found["keypoints"],
        "Grid of the transform": found["grid"],
    }
    save(captioned(pictures), "slicer-head.png")


def main() -> None:
    """Draw all of them."""
    from resources import fundus_pair, head_pair

    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        window = Slicer(Path(folder))
        try:
            window.panel_picture("idle")
            window.ui.serverAddress.text = "http://127.0.0.1:9"
            window.ui.testConnectionButton.click()
            window.until(lambda: not window.widget.panel.server.busy)
            window.panel_picture("error")
            window.ui.serverAddress.text = ""
            window.ui.startServerButton.click()
            window.until(lambda: not window.widget.panel.server.busy)
            if not window.ui.modelSelector.count:
                raise SystemExit(window.said)
            fundus(window, fundus_pair())
            window.ui.undoButton.click()
            head(window, head_pair())
        finally:
            window.widget.cleanup()
            window.patch.undo()
            window.stack.close()


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
