"""A corrected transform in a node: the result as it was, after a small field; saved and loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scene_content import mapped_from_world, points_in, read, transform_kinds, write

from retreg.local_correction import corrected

KINDS = transform_kinds()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("ending", [None, "h5"])
def test_the_node_maps_as_the_corrected_transform_does(
    scene: Any, tmp_path: Any, name: str, ending: str | None
) -> None:
    from RetRegLib.scene.transform_nodes import (
        CORRECTION_MM,
        correct_transform_node,
        transform_node,
        transform_of,
    )

    kind = KINDS[name]
    node = transform_node(kind.transform, "t", scene, kind.grid)
    fixed = points_in(kind.grid, 2, seed=3)
    held = lambda points: mapped_from_world(node, points)  # noqa: E731
    moving = held(fixed) + [[1.5, 0, 0], [0, -1, 0]]
    edited = corrected(held, fixed, moving, 9.0)
    measured = node.GetTransformFromParent()
    before = points_in(kind.grid, 60, seed=5)
    expected, pinned = edited(before), edited(fixed)
    correct_transform_node(node, edited.transforms[0], measured, kind.grid, CORRECTION_MM)
    if ending:
        write(node, tmp_path / "t.h5")
        node = read(scene, "vtkMRMLTransformNode", tmp_path / "t.h5")
    near_mm = 0.05 if ending is None or "field" not in name else 0.1
    np.testing.assert_allclose(mapped_from_world(node, fixed), pinned, atol=near_mm)
    np.testing.assert_allclose(pinned, moving, atol=1e-3)
    np.testing.assert_allclose(mapped_from_world(node, before), expected, atol=near_mm)
    again = transform_of(node)(before)
    np.testing.assert_allclose(again, expected, atol=near_mm)
