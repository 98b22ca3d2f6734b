"""The whole way: the panel's own button starts a real server, which registers a demo pair."""

from __future__ import annotations

import importlib.util
import time

import numpy as np
import pytest

from retreg_server.phantoms.fundus import make_fundus_pair

PATIENCE_S = 180.0


@pytest.fixture
def real(make_window, monkeypatch):
    """The panel with a real connection to a real local server."""
    from RetRegLib import logic
    from RetRegLib.server import connection

    window = make_window()
    monkeypatch.setattr(logic, "Connection", connection.Connection)
    window.press("startServerButton")
    window.until(lambda: not window.panel.server.busy, PATIENCE_S)
    assert window.ui.modelSelector.count > 2, window.message + window.ui.serverStatus.text
    return window


def test_a_pair_is_registered_and_a_server_that_dies_leaves_a_sentence(real, scene):
    from RetRegLib.scene.transform_nodes import transform_of
    from RetRegLib.scene.volumes import volume_from_image

    assert importlib.util.find_spec("retreg_server") is not None
    pair = make_fundus_pair(4, size=384, rotation_deg=25.0, elastic_px=0.0)
    for image, name, selector in (
        (pair.fixed, "Fixed", real.ui.fixedSelector),
        (pair.moving, "Moving", real.ui.movingSelector),
    ):
        selector.setCurrentNode(volume_from_image(image, name, scene))
    stages = set()
    real.press("registerButton")

    def ended():
        stages.add(real.message)
        return not real.panel.busy

    real.until(ended, PATIENCE_S)
    outcome = real.panel.outcome
    assert outcome is not None, real.message
    assert real.asked == [], "nobody is asked before sending to this computer"
    assert len(stages) > 3, "the stages of the model were told"
    found = transform_of(outcome.transform)
    off = np.linalg.norm(found(pair.landmarks) - pair.truth(pair.landmarks), axis=1)
    assert np.median(off) < 1.0
    assert "<b>Accepted.</b>" in real.ui.verdictLabel.text

    process = real.widget.logic.local_server._process._process
    process.kill()
    process.wait()
    start = time.monotonic()
    real.press("registerButton")
    real.until(lambda: not real.panel.busy, PATIENCE_S)
    assert time.monotonic() - start < 30
    assert real.message.startswith("The local server ended unexpectedly; start it again.")
    assert "Traceback" not in real.message
    assert real.ui.startServerButton.text == "Start local server"
    assert not real.ui.registerButton.enabled
    assert real.panel.outcome is outcome
    assert outcome.transform.GetScene() is scene


