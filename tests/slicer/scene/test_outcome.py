"""What one registration puts into the scene, and how it leaves again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from scene_content import (
    AFFINE,
    FIXED_GRID,
    MOVING_GRID,
    PICTURE_GRID,
    add_parent,
    assert_alike_but_for_rounding,
    field,
    image_on,
    node_ids,
    placed,
    points_in,
    result_of,
    smooth_image,
    spline,
    turned,
)

from retreg import Affine, Image, resample, write_transform
from retreg.errors import InputError
from retreg.messages import RegistrationResult

SIGNS = np.array([-1.0, -1, 1])


@pytest.fixture
def result() -> RegistrationResult:
    """A spline with 20 keypoints."""
    transform = spline(20, smoothing=0.1)
    return result_of(transform, points_in(FIXED_GRID, 20, seed=20))


@pytest.fixture
def fixed(scene: Any) -> Any:
    from RetRegLib.scene.volumes import volume_from_image

    return volume_from_image(smooth_image(FIXED_GRID), "fixed", scene)


@pytest.fixture
def moving(scene: Any) -> Any:
    from RetRegLib.scene.volumes import volume_from_image

    return volume_from_image(smooth_image(MOVING_GRID), "moving", scene)


@pytest.fixture
def hierarchy(slicer: Any, scene: Any) -> Any:
    """Subject hierarchy; in the application there always is one."""
    return slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)


def shown_at(node: Any, world: np.ndarray) -> np.ndarray:
    """Where points (n, 3) LPS in the coordinates of a node appear in the world."""
    import vtk

    parent = node.GetParentTransformNode()
    if parent is None:
        return world
    general = vtk.vtkGeneralTransform()
    parent.GetTransformToWorld(general)
    return np.array([general.TransformPoint(*(p * SIGNS)) for p in world]) * SIGNS


def voxel_places(node: Any, grid: Any, index: np.ndarray) -> np.ndarray:
    """Where voxels appear in the world, by VTK; grid is that of the node without parents."""
    return shown_at(node, grid.world(index))


def test_all_nodes_are_there_and_in_one_folder(
    scene: Any, hierarchy: Any, fixed: Any, moving: Any, result: RegistrationResult
) -> None:
    from RetRegLib.scene.outcome import show_outcome

    outcome = show_outcome(result, fixed, moving)
    kinds = [node.GetClassName().removeprefix("vtkMRML") for node in outcome.made]
    assert kinds == [
        "TransformNode",
        "MarkupsFiducialNode",
        "MarkupsFiducialNode",
        "ModelNode",
        "ScalarVolumeNode",
        "TableNode",
        "TextNode",
    ]
    for node in outcome.made:
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == outcome.folder
        assert node.GetScene() is scene
        assert node.GetName().startswith("moving to fixed ")
    assert hierarchy.GetItemName(outcome.folder) == "RetReg: moving to fixed"


def test_the_transform_knows_its_images_and_carries_the_moving_one(
    fixed: Any, moving: Any, result: RegistrationResult
) -> None:
    from RetRegLib.scene.outcome import show_outcome

    outcome = show_outcome(result, fixed, moving)
    node = outcome.transform
    assert node.GetNodeReference(node.GetFixedNodeReferenceRole()) is fixed
    assert node.GetNodeReference(node.GetMovingNodeReferenceRole()) is moving
    assert moving.GetParentTransformNode() is node
    assert fixed.GetParentTransformNode() is None
    assert outcome.moving_keypoints.GetParentTransformNode() is node
    assert outcome.fixed_keypoints.GetParentTransformNode() is None
    assert not outcome.is_edited


def test_both_lists_have_the_same_labels_and_meet_in_the_world(
    fixed: Any, moving: Any, result: RegistrationResult
) -> None:
    from RetRegLib.scene.outcome import show_outcome

    outcome = show_outcome(result, fixed, moving)
    lists = outcome.fixed_keypoints, outcome.moving_keypoints
    labels = [
        [points.GetNthControlPointLabel(n) for n in range(points.GetNumberOfControlPoints())]
        for points in lists
    ]
    assert labels[0] == labels[1] == [str(n) for n in range(1, 21)]
    places = [
        np.array([points.GetNthControlPointPositionWorld(n) for n in range(20)]) for points in lists
    ]
    np.testing.assert_allclose(places[1], places[0], atol=1e-3)
    assert [bool(lists[1].GetNthControlPointSelected(n)) for n in range(3)] == [False, False, True]


def test_the_lines_join_the_pairs_and_are_coloured_by_weight(
    fixed: Any, moving: Any, result: RegistrationResult
) -> None:
    from vtk.util.numpy_support import vtk_to_numpy

    from RetRegLib.scene.outcome import show_outcome

    lines = show_outcome(result, fixed, moving).lines
    mesh = lines.GetPolyData()
    points = vtk_to_numpy(mesh.GetPoints().GetData()) * SIGNS
    assert mesh.GetNumberOfLines() == 20
    ends = mesh.GetCell(mesh.GetNumberOfVerts() + 4).GetPointIds()
    first, second = points[ends.GetId(0)], points[ends.GetId(1)]
    np.testing.assert_allclose(first, result.fixed_keypoints.points[4], atol=1e-9)
    np.testing.assert_allclose(second, result.moving_keypoints.points[4], atol=1e-9)
    weights = vtk_to_numpy(mesh.GetPointData().GetArray("weight"))
    np.testing.assert_allclose(weights[:20], result.fixed_keypoints.weights)
    assert lines.GetDisplayNode().GetActiveScalarName() == "weight"
    assert lines.GetDisplayNode().GetScalarVisibility()


def test_the_table_and_the_text_say_how_it_came_about(
    fixed: Any, moving: Any, result: RegistrationResult
) -> None:
    from RetRegLib.scene.outcome import show_outcome
    from RetRegLib.scene.reports import metrics_of

    outcome = show_outcome(result, fixed, moving)
    rows = metrics_of(outcome.metrics)
    assert list(rows)[:2] == ["verdict", "reason"]
    assert rows["verdict"] == "accept"
    assert rows["reason"] == "Half of the image fits."
    assert float(rows["agreement"]) == 0.5
    told = json.loads(outcome.provenance.GetText())
    assert told["model"] == "some-model"
    assert told["weights_sha256"] == "ab12"
    assert told["version"] == "9.9"
    assert told["options"] == {"transform": "tps", "smoothing": 0.1}
    assert told["seconds"] == {"network": 0.25}
    assert told["time"].startswith("20")
    assert told["verdict"] == "accept"
    assert told["notes"] == []


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["affine", "spline", "field"])
def test_the_warped_volume_equals_resampling_with_the_returned_transform(
    scene: Any, tmp_path: Path, name: str, channels: int
) -> None:
    from RetRegLib.scene.outcome import show_outcome
    from RetRegLib.scene.transform_nodes import transform_of
    from RetRegLib.scene.volumes import image_from_volume, volume_from_image

    transform = {"affine": Affine(AFFINE), "spline": spline(20), "field": field()}[name]
    image = smooth_image(MOVING_GRID, channels, "uint8")
    fixed = volume_from_image(smooth_image(FIXED_GRID), "fixed", scene)
    moving = volume_from_image(image, "moving", scene)
    outcome = show_outcome(result_of(transform, points_in(FIXED_GRID, 9)), fixed, moving)
    warped = image_from_volume(outcome.warped)
    assert warped.array.dtype == np.uint8
    np.testing.assert_allclose(warped.grid.world_from_index, FIXED_GRID.world_from_index)
    again = resample(image, transform_of(outcome.transform), FIXED_GRID)
    assert_alike_but_for_rounding(warped.array, again.array)
    # And SimpleITK, with the file that the command line would write.
    write_transform(tmp_path / "transform.h5", transform, FIXED_GRID)
    by_itk = resampled_by_itk(image, tmp_path / "transform.h5")
    black_around = resample(image, transform_of(outcome.transform), FIXED_GRID, fill=0)
    inside, ours = by_itk.min(axis=0) > 0, black_around.array.min(axis=0) > 0
    assert (inside != ours).mean() < 1e-3  # voxels right on the edge of the moving image
    inside &= ours
    difference = np.abs(warped.array - by_itk)[:, inside]
    assert inside.mean() > 0.3
    assert difference.max() <= 0.5 + 0.5  # rounding, and 0.05 mm of the field in the file
    assert difference.mean() < 0.27


def resampled_by_itk(image: Image, path: Path) -> np.ndarray:
    """(channels, k, j, i) of the moving image on FIXED_GRID."""
    reference = sitk.Image(FIXED_GRID.size, sitk.sitkFloat32)
    channels = []
    for channel in image.array:
        stored = sitk.GetImageFromArray(channel.astype(np.float32))
        for placed_image, grid in ((stored, image.grid), (reference, FIXED_GRID)):
            placed_image.SetSpacing(grid.spacing.tolist())
            placed_image.SetDirection(grid.direction.ravel().tolist())
            placed_image.SetOrigin(grid.world_from_index[:3, 3].tolist())
        transform = sitk.ReadTransform(str(path))
        out = sitk.Resample(stored, reference, transform, sitk.sitkLinear, 0.0)
        channels.append(sitk.GetArrayFromImage(out))
    return np.stack(channels)


def test_what_slicer_shows_live_is_the_warped_volume(
    fixed: Any, moving: Any, result: RegistrationResult, slicer: Any
) -> None:
    from RetRegLib.scene.outcome import show_outcome
    from RetRegLib.scene.volumes import image_from_volume

    outcome = show_outcome(result, fixed, moving)
    live = slicer.vtkSlicerVolumesLogic.ResampleVolumeToReferenceVolume(moving, fixed)
    live.SetAndObserveTransformNodeID(None)
    shown, warped = image_from_volume(live).array[0], image_from_volume(outcome.warped).array[0]
    inside = (shown > 0) & (warped > 0)
    assert inside.mean() > 0.3
    assert np.abs(shown[inside].astype(int) - warped[inside]).max() <= 2


def test_labels_are_not_blended(scene: Any, fixed: Any, result: RegistrationResult) -> None:
    from RetRegLib.scene.outcome import show_outcome
    from RetRegLib.scene.volumes import image_from_volume, volume_from_image

    labels = Image(image_on(MOVING_GRID).array // 50 * 50, MOVING_GRID)
    moving = volume_from_image(labels, "labels", scene, label=True)
    outcome = show_outcome(result, fixed, moving)
    assert outcome.warped.GetClassName() == "vtkMRMLLabelMapVolumeNode"
    found = image_from_volume(outcome.warped).array
    assert set(np.unique(found)) == {0, 50, 100, 150}


def test_a_colour_picture_stays_one(scene: Any) -> None:
    from RetRegLib.scene.outcome import show_outcome
    from RetRegLib.scene.volumes import volume_from_image

    fixed = volume_from_image(smooth_image(PICTURE_GRID, 3, "uint8"), "fixed", scene)
    moving = volume_from_image(smooth_image(PICTURE_GRID, 3, "uint8"), "moving", scene)
    result = result_of(spline(20, PICTURE_GRID), points_in(PICTURE_GRID, 20, seed=20))
    warped = show_outcome(result, fixed, moving).warped
    assert warped.GetClassName() == "vtkMRMLVectorVolumeNode"
    assert warped.GetVoxelVectorType() == warped.VoxelVectorTypeColorRGB
    assert warped.GetImageData().GetDimensions() == (64, 48, 1)


def test_the_warped_volume_is_shown_like_the_moving_one(
    fixed: Any, moving: Any, result: RegistrationResult
) -> None:
    from RetRegLib.scene.outcome import show_outcome

    display = moving.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(77, 33)
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeIron")
    shown = show_outcome(result, fixed, moving).warped.GetDisplayNode()
    assert (shown.GetWindow(), shown.GetLevel()) == (77, 33)
    assert shown.GetColorNodeID() == "vtkMRMLColorTableNodeIron"


FIXED_PARENT = placed(turned(11), (1, 1, 1), (12, -7, 4))
MOVING_PARENT = placed(turned(12), (1.1, 1, 0.9), (-6, 3, 15))


@pytest.mark.parametrize("above", ["none", "fixed", "moving", "both", "same", "shared top"])
def test_the_images_meet_whatever_transforms_they_were_under(
    scene: Any, hierarchy: Any, fixed: Any, moving: Any, above: str
) -> None:
    from RetRegLib.scene.outcome import remove_outcome, show_outcome
    from RetRegLib.scene.volumes import grid_of_volume

    assert hierarchy
    if above in ("fixed", "both"):
        add_parent(scene, fixed, FIXED_PARENT)
    if above in ("moving", "both", "shared top"):
        add_parent(scene, moving, MOVING_PARENT)
    if above in ("same", "shared top"):
        top = add_parent(scene, fixed, FIXED_PARENT, "shared")
        under = moving.GetParentTransformNode() or moving
        under.SetAndObserveTransformNodeID(top.GetID())
    grids = grid_of_volume(fixed), grid_of_volume(moving)
    before, parents_before = node_ids(scene), parents_of(fixed) + parents_of(moving)
    # The result maps world to world, of the images as they were placed.
    transform = spline(20, grids[0])
    result = result_of(transform, points_in(grids[0], 20, seed=20))
    outcome = show_outcome(result, fixed, moving)
    assert parents_of(fixed) == parents_before[: len(parents_of(fixed))]
    np.testing.assert_allclose(
        grid_of_volume(fixed).world_from_index, grids[0].world_from_index, atol=1e-9
    )
    index = np.random.default_rng(0).uniform(5, 20, (30, 3))
    places = voxel_places(moving, MOVING_GRID, index)
    np.testing.assert_allclose(transform(places), grids[1].world(index), atol=1e-3)
    np.testing.assert_allclose(
        grid_of_volume(outcome.warped).world_from_index, grids[0].world_from_index, atol=1e-9
    )
    remove_outcome(outcome)
    assert node_ids(scene) == before
    assert parents_of(fixed) + parents_of(moving) == parents_before


def parents_of(node: Any) -> list[Any]:
    from RetRegLib.scene.nodes import parents

    return parents(node)


def test_the_result_goes_on_top_of_the_chain_and_not_instead_of_it(
    scene: Any, fixed: Any, moving: Any, result: RegistrationResult
) -> None:
    from RetRegLib.scene.outcome import show_outcome

    near = add_parent(scene, moving, MOVING_PARENT, "near")
    far = add_parent(scene, moving, FIXED_PARENT, "far")
    outcome = show_outcome(result, fixed, moving)
    assert parents_of(moving) == [near, far, outcome.transform]


def test_a_moving_volume_under_a_warp_is_refused_and_nothing_happens(
    scene: Any, fixed: Any, moving: Any, result: RegistrationResult, hierarchy: Any
) -> None:
    from RetRegLib.scene.outcome import show_outcome
    from RetRegLib.scene.transform_nodes import transform_node

    assert hierarchy
    warp = transform_node(field(), "warp", scene)
    moving.SetAndObserveTransformNodeID(warp.GetID())
    before = node_ids(scene)
    with pytest.raises(InputError, match="harden it or take the image out of it"):
        show_outcome(result, fixed, moving)
    assert node_ids(scene) == before
    assert parents_of(moving) == [warp]


def test_wanted_nodes_are_filled_and_put_where_they_belong(
    scene: Any, fixed: Any, moving: Any, result: RegistrationResult
) -> None:
    from RetRegLib.scene.markups import keypoints_from_markups
    from RetRegLib.scene.outcome import show_outcome
    from RetRegLib.scene.output_nodes import OutputNodes
    from RetRegLib.scene.transform_nodes import transform_of

    wanted = OutputNodes(
        scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "mine"),
        scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "my volume"),
        scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "my fixed points"),
        scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "my moving points"),
    )
    wanted.transform.SetAndObserveTransformNodeID(
        scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "other").GetID()
    )
    outcome = show_outcome(result, fixed, moving, wanted)
    assert outcome.transform is wanted.transform
    assert outcome.warped is wanted.warped
    assert outcome.transform.GetName() == "mine"
    assert parents_of(moving) == [wanted.transform]
    points = points_in(FIXED_GRID, 30)
    np.testing.assert_allclose(
        transform_of(wanted.transform)(points), result.transform(points), atol=1e-6
    )
    found = keypoints_from_markups(wanted.moving_keypoints)
    np.testing.assert_allclose(found.points, result.moving_keypoints.points, atol=1e-9)
    assert wanted.warped.GetImageData().GetDimensions() == FIXED_GRID.size
    assert wanted.warped.GetDisplayNode() is not None


def test_registering_again_into_the_same_transform_replaces_it(
    scene: Any, fixed: Any, moving: Any, result: RegistrationResult
) -> None:
    from RetRegLib.scene.outcome import show_outcome
    from RetRegLib.scene.output_nodes import OutputNodes
    from RetRegLib.scene.volumes import image_from_volume

    add_parent(scene, moving, MOVING_PARENT)
    first = show_outcome(result, fixed, moving)
    chain, warped = parents_of(moving), image_from_volume(first.warped).array
    second = show_outcome(result, fixed, moving, OutputNodes(transform=first.transform))
    assert parents_of(moving) == chain
    assert_alike_but_for_rounding(image_from_volume(second.warped).array, warped)


def test_the_warped_volume_can_follow_an_edited_transform(
    fixed: Any, moving: Any, result: RegistrationResult
) -> None:
    from RetRegLib.scene.outcome import show_outcome, warp_again
    from RetRegLib.scene.transform_nodes import update_transform_node
    from RetRegLib.scene.volumes import image_from_volume

    outcome = show_outcome(result, fixed, moving)
    update_transform_node(outcome.transform, Affine(AFFINE))
    assert outcome.is_edited
    warp_again(outcome)
    expected = resample(smooth_image(MOVING_GRID), Affine(AFFINE), FIXED_GRID)
    assert_alike_but_for_rounding(image_from_volume(outcome.warped).array, expected.array)
    outcome.restore_transform()
    assert not outcome.is_edited


def test_a_result_without_keypoints_is_shown_as_well(fixed: Any, moving: Any) -> None:
    from RetRegLib.scene.outcome import show_outcome

    outcome = show_outcome(result_of(field(), np.zeros((0, 3))), fixed, moving)
    assert outcome.transform.GetClassName() == "vtkMRMLGridTransformNode"
    assert outcome.fixed_keypoints.GetNumberOfControlPoints() == 0


def test_a_whole_scene_is_saved_and_loaded_with_its_result(
    scene: Any, fixed: Any, moving: Any, result: RegistrationResult, tmp_path: Path
) -> None:
    from scene_content import mapped_from_world

    from RetRegLib.scene.outcome import show_outcome

    outcome = show_outcome(result, fixed, moving)
    nodes = [fixed, moving, *outcome.made]
    endings = ["nrrd", "nrrd", "h5", "mrk.json", "mrk.json", "vtk", "nrrd", "tsv", "txt"]
    for number, (node, ending) in enumerate(zip(nodes, endings, strict=True)):
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(str(tmp_path / f"{number}.{ending}"))
        assert node.GetStorageNode().WriteData(node)
    scene.SetURL(str(tmp_path / "scene.mrml"))
    scene.SetRootDirectory(str(tmp_path))
    assert scene.Commit()
    names = moving.GetName(), outcome.provenance.GetName()
    scene.Clear(0)
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Import()
    loaded, text = (scene.GetFirstNodeByName(name) for name in names)
    parent = loaded.GetParentTransformNode()
    assert parent.GetNodeReference(parent.GetFixedNodeReferenceRole()).GetName() == "fixed"
    points = points_in(FIXED_GRID, 30)
    np.testing.assert_allclose(
        mapped_from_world(parent, points), result.transform(points), atol=1e-6
    )
    assert json.loads(text.GetText())["model"] == "some-model"
