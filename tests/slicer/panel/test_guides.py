"""Masks and a transform to start near, chosen in the panel."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def guides(ready, slicer, scene, volumes):
    """A mask of either image and a transform, chosen in the panel."""
    masks = []
    for name, volume, shown in zip(("Fixed", "Moving"), volumes, (4, 7), strict=True):
        values = np.zeros((9, 12, 10), np.uint8)
        values[:shown] = 1
        node = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", f"{name} mask")
        slicer.util.updateVolumeFromArray(node, values)
        node.CopyOrientation(volume)
        masks.append(node)
    about = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "About")
    matrix = np.eye(4)
    matrix[:3, 3] = -2, 1, 0.5
    about.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    ready.ui.fixedMaskSelector.setCurrentNode(masks[0])
    ready.ui.movingMaskSelector.setCurrentNode(masks[1])
    ready.ui.initialSelector.setCurrentNode(about)
    ready.server.gate.set()
    return *masks, about


def test_masks_and_a_transform_reach_the_server(ready, guides):
    assert guides
    ready.register()
    fixed, moving = ready.server.images[-1]
    assert [int(each.counted.sum()) for each in (fixed, moving)] == [4 * 120, 7 * 120]
    shift = ready.server.orders[-1]["initial"].moving_from_fixed[:3, 3]
    np.testing.assert_allclose(shift, (-2, 1, -0.5), atol=1e-9)


def test_without_them_everything_counts_and_all_is_searched(ready):
    ready.server.gate.set()
    ready.register()
    assert [each.counted for each in ready.server.images[-1]] == [None, None]
    assert "initial" not in ready.server.orders[-1]


def test_they_are_kept_in_the_scene(ready, guides, scene, make_window):
    ready.panel.exit()
    again = make_window()
    chosen = again.panel.order.parameters
    assert (chosen.fixed_mask, chosen.moving_mask, chosen.initial) == guides
    assert again.ui.initialSelector.currentNode() is guides[2]
    scene.RemoveNode(guides[2])
    assert make_window().panel.order.parameters.initial is None


def test_masks_are_swapped_with_their_images_and_the_transform_is_let_go(ready, guides):
    ready.press("swapButton")
    chosen = ready.panel.order.parameters
    assert (chosen.fixed_mask, chosen.moving_mask, chosen.initial) == (guides[1], guides[0], None)


def test_a_mask_of_the_first_moving_image_is_not_one_of_the_next(ready, guides, slicer, scene):
    import qt

    assert guides
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Visit 2")
    voxels = np.random.default_rng(5).random((9, 12, 10), dtype=np.float32)
    slicer.util.updateVolumeFromArray(node, voxels)
    ready.ui.moreSelector.setCheckState(node, qt.Qt.Checked)
    ready.register()
    ready.until(lambda: len(ready.server.images) == 2 and not ready.panel.busy)
    fixed, moving = ready.server.images[1]
    assert moving.counted is None
    assert fixed.counted is not None
    assert "initial" not in ready.server.orders[1]


def test_a_mask_that_leaves_nothing_is_told_in_a_sentence(ready, guides, slicer):
    slicer.util.updateVolumeFromArray(guides[0], np.zeros((9, 12, 10), np.uint8))
    ready.register()
    assert "fixed mask leaves nothing" in ready.message
    assert not ready.server.images
