"""Keypoints to point lists and back, in the scene and through files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scene_content import FIXED_GRID, points_in, read, spline, write

from retreg import Keypoints, read_markups, write_markups


@pytest.fixture
def keypoints() -> Keypoints:
    rng = np.random.default_rng(0)
    return Keypoints(points_in(FIXED_GRID, 12), rng.uniform(0, 1, 12), rng.uniform(size=12) > 0.3)


def assert_same(found: Keypoints, expected: Keypoints) -> None:
    np.testing.assert_allclose(found.points, expected.points, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-12)
    np.testing.assert_array_equal(found.inliers, expected.inliers)


def test_keypoints_come_back_from_their_list(scene: Any, keypoints: Keypoints) -> None:
    from RetRegLib.scene.markups import keypoints_from_markups, markups_from_keypoints

    assert_same(keypoints_from_markups(markups_from_keypoints(keypoints, "k", scene)), keypoints)


def test_the_list_is_what_slicer_shows(scene: Any, keypoints: Keypoints) -> None:
    from RetRegLib.scene.markups import markups_from_keypoints

    node = markups_from_keypoints(keypoints, "k", scene)
    count = node.GetNumberOfControlPoints()
    assert [node.GetNthControlPointLabel(n) for n in range(count)] == [str(n) for n in range(1, 13)]
    x, y, z = keypoints.points[4]
    np.testing.assert_allclose(node.GetNthControlPointPosition(4), (-x, -y, z))
    assert node.GetNthControlPointDescription(4) == f"weight={float(keypoints.weights[4])!r}"
    selected = [bool(node.GetNthControlPointSelected(n)) for n in range(count)]
    assert selected == keypoints.inliers.tolist()


def test_slicers_file_is_read_by_retreg(scene: Any, tmp_path: Path, keypoints: Keypoints) -> None:
    from RetRegLib.scene.markups import markups_from_keypoints

    write(markups_from_keypoints(keypoints, "k", scene), tmp_path / "k.mrk.json")
    assert_same(read_markups(tmp_path / "k.mrk.json"), keypoints)


def test_the_file_of_retreg_is_read_by_slicer(
    scene: Any, tmp_path: Path, keypoints: Keypoints
) -> None:
    from RetRegLib.scene.markups import keypoints_from_markups

    write_markups(tmp_path / "k.mrk.json", keypoints)
    node = read(scene, "vtkMRMLMarkupsFiducialNode", tmp_path / "k.mrk.json")
    assert_same(keypoints_from_markups(node), keypoints)


def test_points_under_a_transform_keep_their_own_coordinates(
    scene: Any, keypoints: Keypoints
) -> None:
    from RetRegLib.scene.markups import keypoints_from_markups, markups_from_keypoints
    from RetRegLib.scene.transform_nodes import transform_node

    transform = spline(20)
    moved = Keypoints(transform(keypoints.points), keypoints.weights, keypoints.inliers)
    node = markups_from_keypoints(moved, "k", scene)
    node.SetAndObserveTransformNodeID(transform_node(transform, "t", scene).GetID())
    assert_same(keypoints_from_markups(node), moved)
    # The moving points appear at the fixed ones.
    shown = np.array([node.GetNthControlPointPositionWorld(n) for n in range(12)])
    np.testing.assert_allclose(shown * (-1, -1, 1), keypoints.points, atol=1e-3)


def test_filling_a_list_again_replaces_it(scene: Any, keypoints: Keypoints) -> None:
    from RetRegLib.scene.markups import fill_markups, keypoints_from_markups, markups_from_keypoints

    node = markups_from_keypoints(keypoints, "k", scene)
    fewer = Keypoints(keypoints.points[:3], keypoints.weights[:3], keypoints.inliers[:3])
    fill_markups(node, fewer)
    assert_same(keypoints_from_markups(node), fewer)
    assert [node.GetNthControlPointLabel(n) for n in range(3)] == ["1", "2", "3"]


def test_points_that_are_not_placed_do_not_count(scene: Any, keypoints: Keypoints) -> None:
    from RetRegLib.scene.markups import keypoints_from_markups, markups_from_keypoints

    node = markups_from_keypoints(keypoints, "k", scene)
    node.UnsetNthControlPointPosition(5)
    found = keypoints_from_markups(node)
    np.testing.assert_allclose(found.points, np.delete(keypoints.points, 5, axis=0), atol=1e-9)


@pytest.mark.parametrize("description", ["", "the optic disc", "weight=", "weight=e-"])
def test_a_point_of_someone_else_has_the_weight_one(scene: Any, description: str) -> None:
    from RetRegLib.scene.markups import keypoints_from_markups

    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    node.AddControlPoint([1.0, 2, 3])
    node.SetNthControlPointDescription(0, description)
    found = keypoints_from_markups(node)
    np.testing.assert_allclose(found.points, [[-1, -2, 3]])
    assert found.weights.tolist() == [1.0]


def test_an_empty_list_is_fine(scene: Any) -> None:
    from RetRegLib.scene.markups import keypoints_from_markups, markups_from_keypoints

    none = Keypoints(np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool))
    assert len(keypoints_from_markups(markups_from_keypoints(none, "k", scene))) == 0
