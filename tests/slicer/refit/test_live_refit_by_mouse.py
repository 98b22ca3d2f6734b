"""Keypoints dragged with the mouse in a real slice view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scene_content import mapped_from_world, result_of, smooth_image

from retreg import Grid, fitting

GRID = Grid.of_picture(200, 200)
POINT = 5
SIGNS = np.array([-1.0, -1, 1])
ONE_PIXEL_OF_THE_VIEW = 0.5  # mm


@dataclass(frozen=True, eq=False)
class Desk:
    """A registered pair of pictures in a view, with mouse and live refit."""

    mouse: Any
    outcome: Any
    live: Any
    told: list[Any]

    def grab(self, points: Any) -> np.ndarray:
        """Show one list only; where its point is in the world (LPS)."""
        for node in (self.outcome.fixed_keypoints, self.outcome.moving_keypoints):
            node.SetDisplayVisibility(node is points)
        return self.at(points)

    def at(self, points: Any) -> np.ndarray:
        return np.array(points.GetNthControlPointPositionWorld(POINT)) * SIGNS

    def shown(self) -> np.ndarray:
        """Where some places of the fixed image are taken now."""
        places = np.array([[30.0, 50, 0], [120, 90, 0], [170, 160, 0]])
        return mapped_from_world(self.outcome.transform, places)


@pytest.fixture
def desk(slicer: Any, scene: Any) -> Iterator[Desk]:
    from slice_mouse import SliceMouse
    from slice_shot import SliceShot

    from RetRegLib.refit.live_refit import LiveRefit
    from RetRegLib.scene.outcome import show_outcome
    from RetRegLib.scene.volumes import volume_from_image

    fixed = np.array([[x, y, 0.0] for x in (40, 80, 120, 160) for y in (40, 80, 120, 160)])
    moving = fixed + np.random.default_rng(0).normal(0, 2, fixed.shape) * (1, 1, 0)
    result = result_of(fitting.fit_tps(fixed, moving, smoothing=0.1), fixed, moving, outliers=0)
    nodes = [
        volume_from_image(smooth_image(GRID, 3, "uint8"), name, scene)
        for name in ("fixed", "moving")
    ]
    with SliceShot(scene, slicer.app.applicationLogic(), (400, 400)) as shot:
        outcome = show_outcome(result, *nodes)
        mouse = SliceMouse(shot)
        shot.pixels(*nodes)
        told: list[Any] = []
        yield Desk(mouse, outcome, LiveRefit(outcome, "tps", 0.1, told.append), told)


@pytest.mark.parametrize("which", ["fixed_keypoints", "moving_keypoints"])
def test_a_click_on_a_point_changes_nothing(desk: Desk, which: str) -> None:
    points = getattr(desk.outcome, which)
    place = desk.grab(points)
    begun = []
    points.AddObserver(points.PointStartInteractionEvent, lambda *_: begun.append(1))
    desk.mouse.press(place)
    desk.mouse.release(place)
    assert begun  # the click did reach the point
    assert desk.told == []
    assert not desk.outcome.is_edited


def test_the_image_follows_a_fixed_point(desk: Desk) -> None:
    points = desk.outcome.fixed_keypoints
    start, before = desk.grab(points), desk.shown()
    desk.mouse.press(start)
    moved = []
    for step in (4, 8, 12):
        desk.mouse.move(start + (step, 0, 0))
        moved.append(np.abs(desk.shown() - before).max())
    desk.mouse.release(start + (12, 0, 0))
    assert moved[-1] > moved[0] > 0.01
    np.testing.assert_allclose(desk.at(points), start + (12, 0, 0), atol=ONE_PIXEL_OF_THE_VIEW)
    np.testing.assert_allclose(
        desk.live.refit.transform(np.array([[30.0, 50, 0]])), desk.shown()[:1], atol=1e-6
    )


def test_a_moving_point_goes_where_it_is_dropped_on_the_moving_image(desk: Desk) -> None:
    points, transform = desk.outcome.moving_keypoints, desk.outcome.result.transform
    start, before = desk.grab(points), desk.shown()
    place = start + (10, 6, 0)
    desk.mouse.press(start)
    for share in (0.25, 0.5, 0.75, 1.0):
        desk.mouse.move(start + share * (place - start))
        np.testing.assert_array_equal(desk.shown(), before)  # the image stays under the mouse
        np.testing.assert_allclose(
            desk.at(points), start + share * (place - start), atol=ONE_PIXEL_OF_THE_VIEW
        )
    desk.mouse.release(place)
    dropped = np.array(points.GetNthControlPointPosition(POINT)) * SIGNS
    np.testing.assert_allclose(dropped, transform(place[None])[0], atol=1.2 * ONE_PIXEL_OF_THE_VIEW)
    assert np.abs(desk.shown() - before).max() > 0.1
    # The image came to the point's partner: nearer to it than where it was dropped.
    partner = np.array([80.0, 80, 0])
    assert np.linalg.norm(desk.at(points) - partner) < 0.5 * np.linalg.norm(place - partner)
