"""A scene that was saved and loaded goes on where it was left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refit_bench import SIGNS
from scene_content import (
    FIXED_GRID,
    MOVING_GRID,
    PICTURE_GRID,
    Kind,
    add_parent,
    mapped_from_world,
    placed,
    points_in,
    result_of,
    smooth_image,
    transform_kinds,
    turned,
)

KINDS = transform_kinds()
SAVED = ("affine", "spline", "many points", "field", "chain")


@pytest.fixture
def pair(slicer: Any, scene: Any) -> tuple[Any, Any]:
    from RetRegLib.scene.volumes import volume_from_image

    slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    return (
        volume_from_image(smooth_image(FIXED_GRID), "fixed", scene),
        volume_from_image(smooth_image(MOVING_GRID), "moving", scene),
    )


def saved_and_loaded(scene: Any, folder: Path, ending: str) -> None:
    """With Slicer's own bundle, or with files beside a scene file."""
    if ending == "mrb":
        assert scene.WriteToMRB(str(folder / "scene.mrb"))
        scene.Clear(0)
        unpacked = scene.UnpackSlicerDataBundle(str(folder / "scene.mrb"), str(folder))
        scene.SetURL(unpacked)
        assert scene.Import()
        return
    endings = {
        "Volume": "nrrd", "Markups": "mrk.json", "Model": "vtk", "Table": "tsv", "Text": "txt",
        "Transform": "h5",
    }
    for n in range(scene.GetNumberOfNodesByClass("vtkMRMLStorableNode")):
        node = scene.GetNthNodeByClass(n, "vtkMRMLStorableNode")
        found = [e for kind, e in endings.items() if node.IsA(f"vtkMRML{kind}Node")]
        if not found:
            continue
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode()
        if node.GetStorageNode() is not None:  # short texts need none
            node.GetStorageNode().SetFileName(str(folder / f"{n}.{found[0]}"))
            assert node.GetStorageNode().WriteData(node)
    scene.SetURL(str(folder / "scene.mrml"))
    scene.SetRootDirectory(str(folder))
    assert scene.Commit()
    scene.Clear(0)
    scene.SetURL(str(folder / "scene.mrml"))
    assert scene.Import()


def made(pair: tuple[Any, Any], kind: Kind, **how: Any) -> Any:
    from RetRegLib.scene.outcome import show_outcome

    return show_outcome(result_of(kind.transform, points_in(FIXED_GRID, 12)), *pair, **how)


@pytest.mark.parametrize("ending", ["mrb", "mrml"])
@pytest.mark.parametrize("name", SAVED)
def test_the_outcome_is_what_it_was(
    scene: Any, pair: tuple[Any, Any], tmp_path: Path, name: str, ending: str
) -> None:
    from RetRegLib.scene.markups import keypoints_from_markups
    from RetRegLib.scene.saved_outcomes import saved_outcomes

    before = made(pair, KINDS[name])
    points = points_in(FIXED_GRID, 40)
    shown = mapped_from_world(before.transform, points)
    saved_and_loaded(scene, tmp_path, ending)
    (after,) = saved_outcomes(scene)
    np.testing.assert_allclose(mapped_from_world(after.transform, points), shown, atol=0.01)
    np.testing.assert_allclose(
        after.result.transform(points), before.result.transform(points), atol=0.01
    )
    assert not after.is_edited
    assert after.is_shown
    assert (after.fixed.GetName(), after.moving.GetName()) == ("fixed", "moving")
    found, expected = after.result.quality, before.result.quality
    assert (found.verdict, found.reason) == (expected.verdict, expected.reason)
    assert dict(found.numbers) == dict(expected.numbers)
    assert after.result.provenance == before.result.provenance
    found = keypoints_from_markups(after.moving_keypoints)
    np.testing.assert_allclose(found.points, before.result.moving_keypoints.points, atol=1e-4)
    assert saved_outcomes(scene, [after]) == []


@pytest.mark.parametrize("ending", ["mrb", "mrml"])
@pytest.mark.parametrize("name", ["field", "spline"])
def test_a_correction_goes_on_and_can_still_be_taken_back(
    scene: Any, pair: tuple[Any, Any], tmp_path: Path, name: str, ending: str
) -> None:
    from RetRegLib.refit.live_refit import LiveRefit
    from RetRegLib.scene.saved_outcomes import saved_outcomes

    before = made(pair, KINDS[name])
    live = LiveRefit(before, "correction", 0.1, reach_mm=10)
    place = np.array(before.fixed_keypoints.GetNthControlPointPosition(5)) + (2, 1, 0)
    before.fixed_keypoints.SetNthControlPointPosition(5, *place)
    live.close()
    points = np.vstack([points_in(FIXED_GRID, 40), place * SIGNS])
    shown = mapped_from_world(before.transform, points)
    measured = before.result.transform(points)
    assert np.abs(shown - measured).max() > 0.5
    saved_and_loaded(scene, tmp_path, ending)
    (after,) = saved_outcomes(scene)
    assert after.is_edited
    np.testing.assert_allclose(mapped_from_world(after.transform, points), shown, atol=0.02)
    again = LiveRefit(after, "correction", 0.1, reach_mm=10)
    other = np.array(after.fixed_keypoints.GetNthControlPointPosition(7)) + (1, 0, 0)
    after.fixed_keypoints.SetNthControlPointPosition(7, *other)
    both = mapped_from_world(after.transform, np.array([place, other]) * SIGNS)
    partners = [after.moving_keypoints.GetNthControlPointPosition(n) for n in (5, 7)]
    np.testing.assert_allclose(both, np.array(partners) * SIGNS, atol=0.1)
    again.reset()
    np.testing.assert_allclose(mapped_from_world(after.transform, points), measured, atol=0.05)


def test_removing_a_loaded_result_puts_the_image_back(
    scene: Any, pair: tuple[Any, Any], tmp_path: Path
) -> None:
    from RetRegLib.scene.outcome import remove_outcome
    from RetRegLib.scene.saved_outcomes import saved_outcomes

    parent = add_parent(scene, pair[0], placed(turned(5), (1, 1, 1), (3, 4, 5)), "shared")
    pair[1].SetAndObserveTransformNodeID(parent.GetID())
    made(pair, KINDS["affine"])
    saved_and_loaded(scene, tmp_path, "mrb")
    (after,) = saved_outcomes(scene)
    remove_outcome(after)
    moving = scene.GetFirstNodeByName("moving")
    assert moving.GetParentTransformNode() is scene.GetFirstNodeByName("shared")
    assert saved_outcomes(scene) == []
    assert scene.GetNumberOfNodesByClass("vtkMRMLTextNode") == 0
    assert scene.GetNumberOfNodesByClass("vtkMRMLTransformNode") == 1


def test_a_second_run_after_loading_does_not_stack_on_the_first(
    scene: Any, pair: tuple[Any, Any], tmp_path: Path
) -> None:
    from RetRegLib.scene.outcome import show_outcome
    from RetRegLib.scene.saved_outcomes import saved_outcomes

    made(pair, KINDS["affine"])
    saved_and_loaded(scene, tmp_path, "mrb")
    (first,) = saved_outcomes(scene)
    second = show_outcome(first.result, first.fixed, first.moving)
    assert first.moving.GetParentTransformNode() is second.transform
    assert second.transform.GetParentTransformNode() is None


def test_a_damaged_or_incomplete_record_is_left_out(scene: Any, pair: tuple[Any, Any]) -> None:
    from RetRegLib.scene.placement import RECORD
    from RetRegLib.scene.saved_outcomes import saved_outcomes

    first, second, third = (made(pair, KINDS["affine"]) for _ in range(3))
    first.provenance.GetNodeReference(RECORD).SetText("{}")
    scene.RemoveNode(second.fixed_keypoints)
    scene.RemoveNode(third.warped)
    (found,) = saved_outcomes(scene)
    assert found.provenance is third.provenance
    assert found.warped.GetScene() is None


def test_a_picture_goes_on_too(slicer: Any, scene: Any, tmp_path: Path) -> None:
    from RetRegLib.scene.outcome import show_outcome
    from RetRegLib.scene.saved_outcomes import saved_outcomes
    from RetRegLib.scene.volumes import volume_from_image

    slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    nodes = [volume_from_image(smooth_image(PICTURE_GRID, 3, "uint8"), n, scene) for n in "fm"]
    kind = KINDS["spline of a picture"]
    before = show_outcome(result_of(kind.transform, points_in(PICTURE_GRID, 9)), *nodes)
    points = points_in(PICTURE_GRID, 20)
    shown = mapped_from_world(before.transform, points)
    saved_and_loaded(scene, tmp_path, "mrb")
    (after,) = saved_outcomes(scene)
    np.testing.assert_allclose(mapped_from_world(after.transform, points), shown, atol=1e-3)
