"""Masks from label maps, volumes and segmentations; a transform to start near."""

from __future__ import annotations

import numpy as np
import pytest

from retreg.errors import InputError
from retreg.geometry import Grid

SHAPE, BOX = (9, 12, 10), (slice(2, 5), slice(3, 8), slice(1, 4))
PLACE = np.array([[0, -2.0, 0, 5], [1, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])  # RAS from index


def drawn():
    values = np.zeros(SHAPE, np.uint8)
    values[BOX] = 3
    return values


def a_volume(slicer, scene, values, kind="LabelMap"):
    node = scene.AddNewNodeByClass(f"vtkMRML{kind}VolumeNode", "Drawn")
    slicer.util.updateVolumeFromArray(node, values)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(PLACE))
    return node


def a_segmentation(slicer, scene, values, first=(0, 0, 0)):
    """A segment with these values, stored from an index (k, j, i) on."""
    import vtk
    from vtk.util import numpy_support

    stored = values[tuple(slice(n, None) for n in first)]
    data = slicer.vtkOrientedImageData()
    low, high = np.array(first)[::-1], np.array(SHAPE)[::-1] - 1
    data.SetExtent(*np.stack([low, high], axis=1).ravel().tolist())
    data.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    numpy_support.vtk_to_numpy(data.GetPointData().GetScalars())[:] = (stored > 0).ravel()
    data.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(PLACE))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Drawn")
    node.AddSegmentFromBinaryLabelmapRepresentation(data, "lesion")
    return node


def shifted(slicer, scene, millimetres, name="Parent"):
    """A transform to the parent that shifts by so much along R."""
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    matrix = np.eye(4)
    matrix[0, 3] = millimetres
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def world_of(mask):
    """LPS mm (n, 3) of what is drawn, sorted."""
    k, j, i = np.nonzero(mask.array[0])
    return np.array(sorted(mask.grid.world(np.stack([i, j, k], axis=1)).round(6).tolist()))


@pytest.mark.parametrize("first", [(0, 0, 0), (1, 2, 1)])
def test_a_segmentation_is_the_same_mask_as_a_label_map(slicer, scene, first):
    from RetRegLib.scene.guides import mask_from

    label = mask_from(a_volume(slicer, scene, drawn()))
    segments = a_segmentation(slicer, scene, drawn(), first)
    assert len(world_of(label)) == 45
    np.testing.assert_allclose(world_of(mask_from(segments)), world_of(label))
    segments.SetAndObserveTransformNodeID(shifted(slicer, scene, 4).GetID())
    np.testing.assert_allclose(world_of(mask_from(segments)), world_of(label) - (4, 0, 0))


def test_an_empty_segmentation_is_no_mask(scene):
    from RetRegLib.scene.guides import mask_from

    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Nothing")
    with pytest.raises(InputError, match="Nothing holds no segment"):
        mask_from(node)


@pytest.mark.parametrize("kind", ["label", "segmentation", "scalar"])
def test_what_is_masked_does_not_count(slicer, scene, kind):
    from RetRegLib.scene.guides import Guides
    from RetRegLib.scene.input_pair import Pair

    values = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    fixed, moving = (a_volume(slicer, scene, values, "Scalar") for _ in range(2))
    mask = (
        a_segmentation(slicer, scene, drawn()) if kind == "segmentation"
        else a_volume(slicer, scene, drawn(), "Scalar" if kind == "scalar" else "LabelMap")
    )  # fmt: skip
    plain = Pair(fixed, moving)
    assert plain.fixed_image.counted is plain.moving_image.counted is None
    assert plain.known == {}
    pair = Pair(fixed, moving, guides=Guides(fixed_mask=mask))
    np.testing.assert_array_equal(pair.fixed_image.counted, drawn() > 0)
    assert pair.moving_image.counted is None


def test_the_mask_of_a_moving_image_goes_with_it_out_of_an_earlier_result(slicer, scene):
    from RetRegLib.scene.guides import Guides
    from RetRegLib.scene.input_pair import Pair

    values = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    fixed, moving = (a_volume(slicer, scene, values, "Scalar") for _ in range(2))
    mask, earlier = a_volume(slicer, scene, drawn()), shifted(slicer, scene, 40)
    for node in (moving, mask):
        node.SetAndObserveTransformNodeID(earlier.GetID())
    pair = Pair(fixed, moving, replaced=earlier, guides=Guides(moving_mask=mask))
    np.testing.assert_array_equal(pair.moving_image.counted, drawn() > 0)


def test_a_transform_that_brings_the_moving_image_over_is_where_it_starts(slicer, scene):
    from RetRegLib.scene.guides import initial_from

    moving = a_volume(slicer, scene, drawn())
    node = shifted(slicer, scene, 40, "About")
    found = initial_from(node, Grid((10, 12, 9), np.eye(4)), moving)
    at = np.array([[1.0, 2, 3]])
    np.testing.assert_allclose(found(at), at + (40, 0, 0), atol=1e-9)


def test_a_transform_under_which_the_image_lies_already_is_not_used_twice(slicer, scene):
    from RetRegLib.scene.guides import initial_from

    moving, node = a_volume(slicer, scene, drawn()), shifted(slicer, scene, 40, "About")
    moving.SetAndObserveTransformNodeID(node.GetID())
    with pytest.raises(InputError, match="lies under About already"):
        initial_from(node, Grid((10, 12, 9), np.eye(4)), moving)
