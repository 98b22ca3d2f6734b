"""Ways of looking at a result, with pictures of real slice views."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scene_content import PICTURE_GRID, QUALITY, image_on, placed, result_of, smooth_image, turned

from retreg import Grid, Image, resample
from retreg.messages import Keypoints, RegistrationResult

SIZE = (300, 300)


@pytest.fixture
def shot(slicer: Any, scene: Any) -> Iterator[Any]:
    """A slice view, offscreen."""
    from slice_shot import SliceShot

    with SliceShot(scene, slicer.app.applicationLogic(), SIZE) as view:
        yield view


@pytest.fixture(scope="module", params=["fundus", "head"])
def phantom(request: pytest.FixtureRequest) -> Any:
    """A pair whose true transform is known, with its keypoints as a result."""
    from retreg.fitting import fit_tps
    from retreg_server.phantoms.fundus import make_fundus_pair
    from retreg_server.phantoms.head import make_head_pair

    if request.param == "fundus":
        pair = make_fundus_pair(3, size=256, moving="colour")
    else:
        pair = make_head_pair(3, spacing_mm=3.0, rotation_deg=20, moving="t1")
    fixed = pair.landmarks[:60]
    moving = pair.truth(fixed)
    points = [Keypoints(p, np.ones(len(p)), np.ones(len(p), bool)) for p in (fixed, moving)]
    result = RegistrationResult(fit_tps(fixed, moving), *points, QUALITY, {"model": "truth"})
    return pair, result


@pytest.fixture
def shown(scene: Any, phantom: Any) -> Any:
    """The pair in the scene, before it is registered: fixed and moving node, and the result."""
    from RetRegLib.scene.volumes import volume_from_image

    pair, result = phantom
    fixed = volume_from_image(pair.fixed, "fixed", scene)
    moving = volume_from_image(pair.moving, "moving", scene)
    return fixed, moving, result


def hide(*nodes: Any) -> None:
    for node in nodes:
        node.SetDisplayVisibility(False)


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two pictures, where both show something."""
    a, b = a.astype(float).mean(axis=2), b.astype(float).mean(axis=2)
    used = (a > 10) & (b > 10)
    return float(np.corrcoef(a[used], b[used])[0, 1])


def test_the_moving_image_comes_to_lie_on_the_fixed_one(
    scene: Any, shot: Any, phantom: Any, shown: Any
) -> None:
    from RetRegLib.scene.outcome import show_outcome
    from RetRegLib.scene.volumes import volume_from_image

    fixed, moving, result = shown
    truth = resample(phantom[0].moving, phantom[0].truth, phantom[0].fixed.grid)
    right = shot.pixels(fixed, volume_from_image(truth, "truth", scene), 1.0)
    before = shot.pixels(fixed, moving, 1.0)
    outcome = show_outcome(result, fixed, moving)
    hide(outcome.fixed_keypoints, outcome.moving_keypoints, outcome.lines)
    live = shot.pixels(fixed, moving, 1.0)
    warped = shot.pixels(fixed, outcome.warped, 1.0)
    assert similarity(before, right) < 0.9
    assert similarity(live, right) > 0.97
    # What is shown live, through the node, and the resampled volume are one and the same.
    assert similarity(live, warped) > 0.97
    assert (warped.max(axis=2) > 20).mean() > 0.2


def test_both_keypoints_of_a_pair_are_drawn_at_one_place(shot: Any, shown: Any) -> None:
    from RetRegLib.scene.outcome import show_outcome

    fixed, moving, result = shown
    outcome = show_outcome(result, fixed, moving)
    hide(outcome.fixed_keypoints, outcome.moving_keypoints)
    plain = shot.pixels(fixed)
    places = []
    for node in (outcome.fixed_keypoints, outcome.moving_keypoints):
        node.SetDisplayVisibility(True)
        node.GetDisplayNode().SetPointLabelsVisibility(False)
        changed = np.abs(shot.pixels(fixed).astype(int) - plain).max(axis=2) > 40
        node.SetDisplayVisibility(False)
        assert changed.any()
        places.append(changed)
    rows = [np.argwhere(changed).mean(axis=0) for changed in places]
    np.testing.assert_allclose(rows[0], rows[1], atol=2)


@pytest.mark.parametrize("how", ["grid", "glyph"])
def test_the_deformation_is_drawn_and_hidden_again(shot: Any, shown: Any, how: Any) -> None:
    from RetRegLib.scene.outcome import show_outcome
    from RetRegLib.scene.slice_views import show_deformation

    fixed, moving, result = shown
    outcome = show_outcome(result, fixed, moving)
    hide(outcome.fixed_keypoints, outcome.moving_keypoints)
    plain = shot.pixels(fixed)
    show_deformation(outcome.transform, fixed, how)
    drawn = np.abs(shot.pixels(fixed).astype(int) - plain).max(axis=2) > 40
    assert 0.01 < drawn.mean() < 0.5
    halves = (drawn[:150], drawn[150:], drawn[:, :150], drawn[:, 150:])
    assert min(half.mean() for half in halves) > 0.005  # all over the image
    show_deformation(outcome.transform, fixed, None)
    np.testing.assert_array_equal(shot.pixels(fixed), plain)


def test_the_checkerboard_is_shown_and_used_again(scene: Any, shot: Any, shown: Any) -> None:
    from retreg import Affine
    from RetRegLib.scene.checkerboard import show_checkerboard
    from RetRegLib.scene.outcome import show_outcome, warp_again
    from RetRegLib.scene.transform_nodes import update_transform_node
    from RetRegLib.scene.volumes import image_from_volume

    fixed, moving, result = shown
    outcome = show_outcome(result, fixed, moving)
    node = show_checkerboard(outcome)
    assert shot.logic.GetSliceCompositeNode().GetBackgroundVolumeID() == node.GetID()
    first = image_from_volume(node)
    count = scene.GetNumberOfNodes()
    update_transform_node(outcome.transform, Affine.identity())
    warp_again(outcome)
    assert show_checkerboard(outcome) is node
    assert scene.GetNumberOfNodes() == count
    changed = (image_from_volume(node).array != first.array).any(axis=0)
    tiles = np.add.outer(*(np.arange(n) * 8 // max(first.grid.size) for n in changed.shape[1:]))
    assert 0.05 < changed.mean() < 0.6
    assert first.grid.size == tuple(fixed.GetImageData().GetDimensions())
    assert tiles.max() > 1


def test_tiles_come_from_both_images_in_turn() -> None:
    from RetRegLib.scene.checkerboard import checkerboard

    grid = Grid((40, 20, 1), placed(np.eye(3), (1, 2, 1), (0, 0, 0)))
    first = Image(np.full((3, *grid.shape), 200, np.uint8), grid)
    second = Image(np.full((3, *grid.shape), 50, np.uint8), grid)
    board = checkerboard(first, second, tiles=4).array[0, 0]
    assert board.shape == (20, 40)
    # Tiles are squares of 10 mm: 10 columns and 5 rows.
    assert board[0, 0] == board[4, 9] == board[5, 10] == 200
    assert board[0, 10] == board[5, 0] == 50


def test_tiles_of_grey_and_colour_can_be_mixed() -> None:
    from RetRegLib.scene.checkerboard import checkerboard

    colour = image_on(PICTURE_GRID, 3, "uint8")
    grey = Image(
        np.linspace(-5, 5, colour.array[0].size).reshape(1, *PICTURE_GRID.shape), PICTURE_GRID
    )
    board = checkerboard(grey, colour)
    assert board.array.shape == colour.array.shape
    assert board.array.dtype == np.uint8
    np.testing.assert_array_equal(board.array[0, 0, :7, :7], board.array[2, 0, :7, :7])


def test_side_by_side_shows_each_image_in_its_own_view(slicer: Any, scene: Any) -> None:
    from RetRegLib.scene.slice_views import (
        SliceViewState,
        show_alone,
        show_overlay,
        show_side_by_side,
    )
    from RetRegLib.scene.volumes import volume_from_image

    grid = Grid((20, 20, 10), placed(turned(4), (1, 1, 2), (0, 0, 0)))
    fixed = volume_from_image(smooth_image(grid), "fixed", scene)
    moving = volume_from_image(smooth_image(grid), "moving", scene)
    layout = scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    views = []
    for name in ("Red", "Yellow"):
        view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", name)
        view.SetLayoutName(name)
        views.append(view)
    plane = scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    show_side_by_side(fixed, moving)
    assert layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView
    assert [view.GetBackgroundVolumeID() for view in views] == [fixed.GetID(), moving.GetID()]
    normal = np.array([plane.GetSliceToRAS().GetElement(row, 2) for row in range(3)])
    along = grid.direction * np.array([[-1], [-1], [1]])
    assert np.abs(normal @ along).max() > 0.999
    before = SliceViewState.of(scene)
    show_overlay(fixed, moving, 0.3)
    assert [view.GetForegroundVolumeID() for view in views] == [moving.GetID()] * 2
    assert views[0].GetForegroundOpacity() == pytest.approx(0.3)
    show_alone(fixed)
    assert views[1].GetForegroundVolumeID() is None
    before.restore()
    assert [view.GetBackgroundVolumeID() for view in views] == [fixed.GetID(), moving.GetID()]


def test_a_result_of_nothing_can_be_drawn(slicer: Any, scene: Any, shot: Any) -> None:
    from retreg import Affine
    from RetRegLib.scene.outcome import show_outcome
    from RetRegLib.scene.slice_views import show_deformation
    from RetRegLib.scene.volumes import volume_from_image

    assert slicer
    fixed = volume_from_image(smooth_image(PICTURE_GRID, 3, "uint8"), "fixed", scene)
    moving = volume_from_image(smooth_image(PICTURE_GRID, 3, "uint8"), "moving", scene)
    outcome = show_outcome(result_of(Affine.identity(), np.zeros((0, 3))), fixed, moving)
    show_deformation(outcome.transform, fixed, "glyph")
    assert shot.pixels(fixed).shape == (300, 300, 3)
