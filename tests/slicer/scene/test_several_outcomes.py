"""Several results of one scene: none stacks on another unasked, and any can be looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scene_content import (
    AFFINE,
    FIXED_GRID,
    MOVING_GRID,
    add_parent,
    field,
    mapped_from_world,
    placed,
    points_in,
    result_of,
    smooth_image,
    turned,
)

from retreg import Affine
from retreg.errors import InputError

OTHER = np.diag([0.9, 1.1, 1, 1.0])
POINTS = points_in(FIXED_GRID, 12)


@pytest.fixture
def pair(slicer: Any, scene: Any) -> tuple[Any, Any]:
    from RetRegLib.scene.volumes import volume_from_image

    slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    return (
        volume_from_image(smooth_image(FIXED_GRID), "fixed", scene),
        volume_from_image(smooth_image(MOVING_GRID), "moving", scene),
    )


def show(transform: Any, pair: tuple[Any, Any], **how: Any) -> Any:
    from RetRegLib.scene.outcome import show_outcome

    return show_outcome(result_of(transform, POINTS), *pair, **how)


def carried(node: Any) -> np.ndarray:
    """Where places of the world lie in the coordinates of a node, through all above it."""
    return mapped_from_world(node.GetParentTransformNode(), POINTS)


@pytest.mark.parametrize("first", [Affine(AFFINE), field()], ids=["affine", "field"])
@pytest.mark.parametrize("placed_before", [False, True])
def test_a_second_result_takes_the_image_over_and_leaves_the_first(
    scene: Any, pair: tuple[Any, Any], first: Any, placed_before: bool
) -> None:
    place = placed(turned(5), (1, 1, 1), (3, 4, 5))
    if placed_before:
        add_parent(scene, pair[1], place)
    one = show(first, pair)
    two = show(Affine(OTHER), pair)
    expected = Affine(OTHER)(POINTS)
    if placed_before:
        expected = Affine(np.linalg.inv(place))(expected)
    np.testing.assert_allclose(carried(pair[1]), expected, atol=1e-6)
    assert one.transform.GetScene() is scene
    np.testing.assert_allclose(mapped_from_world(one.transform, POINTS), first(POINTS), atol=1e-3)
    assert two.is_shown
    assert not one.is_shown


def test_each_warped_image_is_that_of_its_own_result(slicer: Any, pair: tuple[Any, Any]) -> None:
    from RetRegLib.scene.outcome import warp_again

    one, two = show(Affine(AFFINE), pair), show(Affine(OTHER), pair)
    images = [slicer.util.arrayFromVolume(o.warped).astype(float) for o in (one, two)]
    assert np.abs(images[0] - images[1]).max() > 5
    for outcome, before in zip((one, two), images, strict=True):
        warp_again(outcome)
        again = slicer.util.arrayFromVolume(outcome.warped)
        np.testing.assert_allclose(again, before, atol=1)


def test_the_chosen_result_moves_the_image_and_shows_its_keypoints(pair: tuple[Any, Any]) -> None:
    from RetRegLib.scene.choosing import choose_outcome

    one, two = show(Affine(AFFINE), pair), show(field(), pair)
    choose_outcome(one, [one, two])
    np.testing.assert_allclose(carried(pair[1]), Affine(AFFINE)(POINTS), atol=1e-6)
    assert not two.fixed_keypoints.GetDisplayVisibility()
    choose_outcome(two, [one, two])
    np.testing.assert_allclose(carried(pair[1]), field()(POINTS), atol=1e-3)
    assert not one.fixed_keypoints.GetDisplayVisibility()


@pytest.mark.parametrize("order", ["first", "second"])
def test_results_are_removed_one_by_one_and_the_image_goes_back(
    scene: Any, pair: tuple[Any, Any], order: str
) -> None:
    from RetRegLib.scene.outcome import remove_outcome

    parent = add_parent(scene, pair[0], placed(turned(5), (1, 1, 1), (3, 4, 5)), "shared")
    pair[1].SetAndObserveTransformNodeID(parent.GetID())
    one, two = show(Affine(AFFINE), pair), show(Affine(OTHER), pair)
    if order == "first":
        remove_outcome(one)
        assert two.is_shown
        remove_outcome(two)
    else:
        remove_outcome(two)
        assert one.is_shown
        remove_outcome(one)
    assert pair[1].GetParentTransformNode() is parent
    assert scene.GetNumberOfNodesByClass("vtkMRMLTransformNode") == 1


def test_on_top_when_asked_adds_to_what_the_first_one_shows(pair: tuple[Any, Any]) -> None:
    from RetRegLib.scene.choosing import choose_outcome
    from RetRegLib.scene.outcome import remove_outcome

    one = show(Affine(AFFINE), pair)
    two = show(Affine(OTHER), pair, on_top=True)
    both = Affine(AFFINE)(Affine(OTHER)(POINTS))
    np.testing.assert_allclose(carried(pair[1]), both, atol=1e-6)
    assert (one.is_shown, two.is_shown) == (False, True)
    choose_outcome(one, [one, two])
    assert (one.is_shown, two.is_shown) == (True, False)
    np.testing.assert_allclose(carried(pair[1]), Affine(AFFINE)(POINTS), atol=1e-6)
    choose_outcome(two, [one, two])
    np.testing.assert_allclose(carried(pair[1]), both, atol=1e-6)
    remove_outcome(two)
    np.testing.assert_allclose(carried(pair[1]), Affine(AFFINE)(POINTS), atol=1e-6)
    remove_outcome(one)
    assert pair[1].GetParentTransformNode() is None


def test_on_top_of_a_warp_is_refused_in_a_sentence(pair: tuple[Any, Any]) -> None:
    one = show(field(), pair)
    with pytest.raises(InputError, match="which is not linear"):
        show(Affine(OTHER), pair, on_top=True)
    assert one.is_shown


def test_labels_segmentations_models_points_and_volumes_go_along(
    scene: Any, pair: tuple[Any, Any]
) -> None:
    from RetRegLib.scene.choosing import choose_outcome
    from RetRegLib.scene.outcome import remove_outcome

    kinds = ("LabelMapVolume", "Segmentation", "Model", "MarkupsFiducial", "ScalarVolume")
    nodes = [scene.AddNewNodeByClass(f"vtkMRML{kind}Node") for kind in kinds]
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shared")
    for node in (pair[1], *nodes[:2]):
        node.SetAndObserveTransformNodeID(parent.GetID())
    before = [node.GetParentTransformNode() for node in nodes]
    one = show(field(), pair, also=nodes)
    for node in nodes:
        np.testing.assert_allclose(carried(node), field()(POINTS), atol=1e-3)
    two = show(Affine(OTHER), pair, also=nodes)
    for node in nodes:
        np.testing.assert_allclose(carried(node), Affine(OTHER)(POINTS), atol=1e-6)
    choose_outcome(one, [one, two])
    for node in nodes:
        np.testing.assert_allclose(carried(node), field()(POINTS), atol=1e-3)
    remove_outcome(one)
    remove_outcome(two)
    assert [node.GetParentTransformNode() for node in nodes] == before


def test_what_belongs_to_the_fixed_image_too_is_refused(pair: tuple[Any, Any]) -> None:
    with pytest.raises(InputError, match="cannot go along"):
        show(Affine(OTHER), pair, also=[pair[0]])
    assert pair[1].GetParentTransformNode() is None
