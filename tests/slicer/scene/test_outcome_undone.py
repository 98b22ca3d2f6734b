"""A result leaves no trace: when it fails half-way, when it is removed, when the scene closes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scene_content import (
    AFFINE,
    FIXED_GRID,
    MOVING_GRID,
    add_parent,
    mapped_from_world,
    node_ids,
    placed,
    points_in,
    result_of,
    smooth_image,
    spline,
    turned,
)

from retreg import Affine
from retreg.errors import InputError
from retreg.messages import RegistrationResult


@pytest.fixture
def result() -> RegistrationResult:
    """A spline with 20 keypoints."""
    return result_of(spline(20), points_in(FIXED_GRID, 20, seed=20))


@pytest.fixture
def pair(slicer: Any, scene: Any) -> tuple[Any, Any]:
    """Fixed and moving volumes under one transform, and a slice view that shows one of them."""
    from RetRegLib.scene.volumes import volume_from_image

    slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    fixed = volume_from_image(smooth_image(FIXED_GRID), "fixed", scene)
    moving = volume_from_image(smooth_image(MOVING_GRID), "moving", scene)
    parent = add_parent(scene, fixed, placed(turned(5), (1, 1, 1), (3, 4, 5)))
    moving.SetAndObserveTransformNodeID(parent.GetID())
    view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "view")
    view.SetBackgroundVolumeID(moving.GetID())
    view.SetForegroundOpacity(0.25)
    return fixed, moving


def state(scene: Any) -> dict[str, Any]:
    """What a user could notice of the nodes in a scene."""
    found = {}
    for identity in node_ids(scene):
        node = scene.GetNodeByID(identity)
        facts = [node.GetName(), node.GetClassName()]
        if node.IsA("vtkMRMLTransformableNode"):
            facts.append(node.GetTransformNodeID())
        if node.IsA("vtkMRMLStorableNode"):
            facts.append(node.GetStorageNodeID())
        if node.IsA("vtkMRMLMarkupsNode"):
            facts.append(node.GetNumberOfControlPoints())
        if node.IsA("vtkMRMLTransformNode"):
            points = points_in(FIXED_GRID, 5)
            facts.append(np.round(mapped_from_world(node, points), 9).tolist())
            facts.append(node.GetNodeReferenceID(node.GetMovingNodeReferenceRole()))
        if node.IsA("vtkMRMLVolumeNode") and node.GetImageData() is not None:
            facts.append(node.GetImageData().GetDimensions())
        if node.IsA("vtkMRMLSliceCompositeNode"):
            facts += [node.GetBackgroundVolumeID(), node.GetForegroundVolumeID()]
            facts.append(node.GetForegroundOpacity())
        found[identity] = facts
    return found


def folders(scene: Any, slicer: Any) -> list[str]:
    """The names of all items in the subject hierarchy."""
    import vtk

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    return [hierarchy.GetItemName(items.GetId(n)) for n in range(items.GetNumberOfIds())]


STAGES = [
    "warped_image",
    "transform_node",
    "update_transform_node",
    "place_under",
    "markups_from_keypoints",
    "fill_markups",
    "fill_correspondences",
    "fill_metrics",
    "fill_provenance",
    "file_node",
    "show_overlay",
]


@pytest.mark.parametrize("wanting", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_a_failure_half_way_leaves_everything_as_it_was(
    slicer: Any,
    scene: Any,
    pair: tuple[Any, Any],
    result: RegistrationResult,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    wanting: bool,
) -> None:
    from RetRegLib.scene import outcome as module
    from RetRegLib.scene.transform_nodes import update_transform_node

    wanted = module.OutputNodes()
    if wanting:
        wanted = module.OutputNodes(
            scene.AddNewNodeByClass("vtkMRMLTransformNode", "mine"),
            scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "my volume"),
            scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "my points"),
        )
        update_transform_node(wanted.transform, Affine(AFFINE))
        wanted.fixed_keypoints.AddControlPoint([1.0, 2, 3])
    before, items = state(scene), folders(scene, slicer)
    reached = []

    def fail(*_: Any, **__: Any) -> None:
        reached.append(stage)
        raise RuntimeError(stage)

    monkeypatch.setattr(module, stage, fail)
    unused = {"fill_markups", "update_transform_node"} if not wanting else {"transform_node"}
    if stage in unused:
        module.show_outcome(result, *pair, wanted)
        assert not reached
        return
    with pytest.raises(RuntimeError, match=stage):
        module.show_outcome(result, *pair, wanted)
    assert state(scene) == before
    assert folders(scene, slicer) == items


def test_removing_the_outcome_restores_the_scene(
    slicer: Any, scene: Any, pair: tuple[Any, Any], result: RegistrationResult
) -> None:
    from RetRegLib.scene.checkerboard import show_checkerboard
    from RetRegLib.scene.outcome import remove_outcome, show_outcome
    from RetRegLib.scene.slice_views import show_deformation

    before, items = state(scene), folders(scene, slicer)
    outcome = show_outcome(result, *pair)
    show_deformation(outcome.transform, pair[0], "grid")
    show_checkerboard(outcome)
    assert node_ids(scene) > set(before)
    remove_outcome(outcome)
    assert state(scene) == before
    assert folders(scene, slicer) == items
    remove_outcome(outcome)  # again does no harm


def test_deleting_the_folder_by_hand_does_the_same(
    slicer: Any, scene: Any, pair: tuple[Any, Any], result: RegistrationResult
) -> None:
    from RetRegLib.scene.outcome import show_outcome

    before = state(scene)
    outcome = show_outcome(result, *pair)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    hierarchy.RemoveItem(outcome.folder, True, True)
    assert state(scene) == before


def test_deleting_the_transform_alone_puts_the_moving_volume_back(
    scene: Any, pair: tuple[Any, Any], result: RegistrationResult
) -> None:
    from RetRegLib.scene.outcome import show_outcome

    fixed, moving = pair
    parent = moving.GetParentTransformNode()
    outcome = show_outcome(result, fixed, moving)
    assert moving.GetParentTransformNode() is not parent
    scene.RemoveNode(outcome.transform)
    assert moving.GetParentTransformNode() is parent
    assert outcome.warped.GetScene() is scene


def test_views_that_show_something_else_by_now_are_left_alone(
    scene: Any, pair: tuple[Any, Any], result: RegistrationResult
) -> None:
    from RetRegLib.scene.outcome import remove_outcome, show_outcome
    from RetRegLib.scene.volumes import volume_from_image

    view = scene.GetFirstNodeByName("view")
    outcome = show_outcome(result, *pair)
    other = volume_from_image(smooth_image(FIXED_GRID), "other", scene)
    view.SetForegroundVolumeID(other.GetID())
    remove_outcome(outcome)
    assert view.GetBackgroundVolumeID() == pair[0].GetID()
    assert view.GetForegroundVolumeID() == other.GetID()


def test_a_former_parent_that_is_gone_is_not_missed(
    scene: Any, pair: tuple[Any, Any], result: RegistrationResult
) -> None:
    from RetRegLib.scene.outcome import remove_outcome, show_outcome

    fixed, moving = pair
    parent = moving.GetParentTransformNode()
    outcome = show_outcome(result, fixed, moving)
    scene.RemoveNode(parent)
    remove_outcome(outcome)
    assert moving.GetParentTransformNode() is None


def test_a_result_that_replaced_another_one_is_removed_as_well(
    slicer: Any, scene: Any, pair: tuple[Any, Any], result: RegistrationResult
) -> None:
    from RetRegLib.scene.outcome import remove_outcome, show_outcome
    from RetRegLib.scene.output_nodes import OutputNodes
    from RetRegLib.scene.replacing import clear_away, wanted_again
    from RetRegLib.scene.volumes import grid_of_volume

    fixed, moving = pair
    before, items = state(scene), folders(scene, slicer)
    place = grid_of_volume(moving).world_from_index
    first = show_outcome(result, *pair)
    second = show_outcome(result, *pair, wanted_again(OutputNodes(), first))
    clear_away(first, second)
    assert second.transform is first.transform
    below = grid_of_volume(moving, second.transform).world_from_index
    np.testing.assert_allclose(below, place, atol=1e-9)
    assert second.transform.GetScene() is scene
    remove_outcome(second)
    assert state(scene) == before
    assert folders(scene, slicer) == items
    assert fixed.GetParentTransformNode() is moving.GetParentTransformNode()


def test_removing_the_moving_volume_first_does_no_harm(
    scene: Any, pair: tuple[Any, Any], result: RegistrationResult
) -> None:
    from RetRegLib.scene.outcome import remove_outcome, show_outcome

    fixed, moving = pair
    outcome = show_outcome(result, fixed, moving)
    scene.RemoveNode(moving)
    remove_outcome(outcome)
    assert fixed.GetParentTransformNode() is not None


def test_a_closed_scene_is_left_alone(
    scene: Any, pair: tuple[Any, Any], result: RegistrationResult
) -> None:
    from RetRegLib.scene.outcome import remove_outcome, show_outcome
    from RetRegLib.scene.volumes import volume_from_image

    outcome = show_outcome(result, *pair)
    scene.Clear(0)
    # New nodes get the identities of the old ones.
    for name in ("one", "two", "three"):
        volume_from_image(smooth_image(FIXED_GRID), name, scene)
    before = node_ids(scene)
    other = scene.AddNewNodeByClass("vtkMRMLModelNode")
    scene.RemoveNode(other)
    remove_outcome(outcome)
    assert node_ids(scene) == before


def test_unusable_nodes_are_refused_before_anything_happens(
    scene: Any, pair: tuple[Any, Any], result: RegistrationResult
) -> None:
    from RetRegLib.scene.outcome import show_outcome
    from RetRegLib.scene.output_nodes import OutputNodes

    fixed, moving = pair
    points = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "points")
    colour = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "colour")
    before = state(scene)
    cases = [
        (OutputNodes(transform=points), "points cannot hold the transform"),
        (OutputNodes(warped=colour), "colour cannot hold the warped"),
        (OutputNodes(warped=fixed), "fixed is used twice"),
        (OutputNodes(fixed_keypoints=points, moving_keypoints=points), "points is used twice"),
        (OutputNodes(transform=fixed.GetParentTransformNode()), "fixed lies under parent"),
    ]
    for wanted, sentence in cases:
        with pytest.raises(InputError, match=sentence):
            show_outcome(result, fixed, moving, wanted)
    with pytest.raises(InputError, match="both fixed and moving"):
        show_outcome(result, fixed, fixed)
    with pytest.raises(InputError, match="No image was chosen"):
        show_outcome(result, fixed, None)
    assert state(scene) == before
