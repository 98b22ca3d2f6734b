"""Several moving images in a row, from the panel."""

from __future__ import annotations

import numpy as np
import pytest

from retreg.errors import RegistrationError


@pytest.fixture
def visits(ready, slicer, scene, volumes):
    """Two further moving volumes, checked in the panel."""
    import qt

    assert volumes
    made = []
    for name in ("Visit 2", "Visit 3"):
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        voxels = np.random.default_rng(len(made)).random((9, 12, 10), dtype=np.float32)
        slicer.util.updateVolumeFromArray(node, voxels)
        ready.ui.moreSelector.setCheckState(node, qt.Qt.Checked)
        made.append(node)
    return made


def test_each_image_is_registered_in_its_turn_and_all_results_stay(ready, visits, volumes):
    ready.server.gate.set()
    ready.register()
    ready.until(lambda: not ready.panel.busy)
    outcomes = ready.panel.results.outcomes
    assert [each.moving for each in outcomes] == [volumes[1], *visits]
    for outcome in outcomes:
        assert outcome.moving.GetParentTransformNode() is outcome.transform
    assert ready.message == "3 of 3 images are registered; choose them in Results."
    ready.register()
    ready.until(lambda: not ready.panel.busy)
    assert len(ready.panel.results.outcomes) == 3, "a second round replaces the first"


def test_the_line_says_whose_turn_it_is(ready, visits):
    assert visits
    ready.press("registerButton")
    ready.until(lambda: ready.message.startswith("1/3: Comparing the images"))
    ready.server.gate.set()
    ready.until(lambda: not ready.panel.busy)


def test_one_that_fails_does_not_stop_the_others(ready, visits, volumes, monkeypatch):
    server, shown = ready.server, ready.panel._logic._shown
    server.gate.set()

    def fails_once(result, pair, order):
        if pair.moving is volumes[1]:
            raise RegistrationError("No transform was found.")
        return shown(result, pair, order)

    monkeypatch.setattr(ready.panel._logic, "_shown", fails_once)
    ready.register()
    ready.until(lambda: not ready.panel.busy)
    assert [each.moving for each in ready.panel.results.outcomes] == visits
    assert ready.message.startswith("2 of 3 images are registered")
    assert ready.message.endswith("No transform was found.")


def test_cancel_ends_the_whole_row(ready, visits):
    assert visits
    ready.press("registerButton")
    ready.until(lambda: "Comparing" in ready.message)
    ready.press("registerButton")
    assert not ready.panel.busy
    ready.app.processEvents()
    assert not ready.panel.busy
    assert ready.panel.results.outcomes == []
    assert len(ready.server.orders) == 1
