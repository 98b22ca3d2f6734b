"""Volumes to images and back, against MRML's own geometry and SimpleITK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from scene_content import GRIDS, add_parent, image_on, placed, read, spline, turned, write

from retreg import Grid, Image
from retreg.errors import InputError

CLASSES = {1: "vtkMRMLScalarVolumeNode", 3: "vtkMRMLVectorVolumeNode"}


@pytest.mark.parametrize("channels", CLASSES)
@pytest.mark.parametrize("name", GRIDS)
def test_an_image_comes_back_from_its_volume(scene: Any, name: str, channels: int) -> None:
    from RetRegLib.scene.volumes import image_from_volume, volume_from_image

    image = image_on(GRIDS[name], channels, "uint8")
    node = volume_from_image(image, "volume", scene)
    back = image_from_volume(node)
    assert node.GetClassName() == CLASSES[channels]
    assert back.array.dtype == np.uint8
    np.testing.assert_array_equal(back.array, image.array)
    np.testing.assert_allclose(
        back.grid.world_from_index, image.grid.world_from_index, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", GRIDS)
def test_every_voxel_lies_where_slicer_says(scene: Any, name: str) -> None:
    import vtk

    from RetRegLib.scene.volumes import volume_from_image

    grid = GRIDS[name]
    node = volume_from_image(image_on(grid), "volume", scene)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    for index in [(0, 0, 0), (10, 0, 0), (0, 8, 0), (3, 5, grid.size[2] - 1)]:
        right, anterior, superior, _ = matrix.MultiplyPoint((*index, 1))
        x, y, z = grid.world(np.array([index]))[0]
        np.testing.assert_allclose((right, anterior, superior), (-x, -y, z), atol=1e-9)


@pytest.mark.parametrize("channels", CLASSES)
@pytest.mark.parametrize("name", GRIDS)
def test_simpleitk_reads_the_same_voxels_at_the_same_places(
    scene: Any, tmp_path: Path, name: str, channels: int
) -> None:
    from RetRegLib.scene.volumes import volume_from_image

    grid = GRIDS[name]
    image = image_on(grid, channels, "uint8")
    write(volume_from_image(image, "volume", scene), tmp_path / "volume.nrrd")
    found = sitk.ReadImage(str(tmp_path / "volume.nrrd"))
    for index in [(0, 0, 0), (10, 8, 0), (2, 3, grid.size[2] - 1)]:
        place = found.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(place, grid.world(np.array([index]))[0], atol=1e-6)
        i, j, k = index
        np.testing.assert_array_equal(np.atleast_1d(found[index]), image.array[:, k, j, i])


@pytest.mark.parametrize("ending", ["nrrd", "mha", "nii.gz"])
@pytest.mark.parametrize("name", ["anisotropic", "oblique", "left-handed"])
def test_what_simpleitk_wrote_is_read_as_the_same_image(
    scene: Any, tmp_path: Path, name: str, ending: str
) -> None:
    from RetRegLib.scene.volumes import image_from_volume

    image = image_on(GRIDS[name])
    stored = sitk.GetImageFromArray(image.array[0])
    stored.SetSpacing(image.grid.spacing.tolist())
    stored.SetDirection(image.grid.direction.ravel().tolist())
    stored.SetOrigin(image.grid.world_from_index[:3, 3].tolist())
    path = tmp_path / f"image.{ending}"
    sitk.WriteImage(stored, str(path))
    back = image_from_volume(read(scene, "vtkMRMLScalarVolumeNode", path))
    corners = np.array([(0, 0, 0), (10, 8, 6), (10, 0, 0)], dtype=float)
    near = 1e-6 if ending != "nii.gz" else 1e-3  # NIfTI holds its geometry in single precision
    at = back.grid.index(image.grid.world(corners))
    # Readers may turn the axes; the values at the places must agree.
    np.testing.assert_allclose(at, np.rint(at), atol=near)
    for (i, j, k), index in zip(np.rint(at).astype(int), corners.astype(int), strict=True):
        assert back.array[0, k, j, i] == image.array[0, index[2], index[1], index[0]]


def test_a_picture_lies_as_slicer_places_those_it_loads(scene: Any) -> None:
    import vtk

    from RetRegLib.scene.volumes import volume_from_image

    node = volume_from_image(image_on(Grid.of_picture(6, 4), 3, "uint8"), "picture", scene)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    found = [matrix.GetElement(row, column) for row in range(4) for column in range(4)]
    np.testing.assert_allclose(found, np.diag([-1.0, -1, 1, 1]).ravel())
    assert node.GetVoxelVectorType() == node.VoxelVectorTypeColorRGB
    assert node.GetImageData().GetDimensions() == (6, 4, 1)


def test_linear_parents_are_part_of_the_place(scene: Any) -> None:
    from RetRegLib.scene.volumes import image_from_volume, volume_from_image

    image = image_on(GRIDS["oblique"])
    node = volume_from_image(image, "volume", scene)
    near, far = placed(turned(7), (1, 1, 1), (3, 4, 5)), placed(turned(8), (2, 1, 1), (-1, 0, 9))
    add_parent(scene, node, near)
    upper = add_parent(scene, node, far)
    expected = far @ near @ image.grid.world_from_index
    np.testing.assert_allclose(image_from_volume(node).grid.world_from_index, expected, atol=1e-9)
    below = image_from_volume(node, below=upper).grid.world_from_index
    np.testing.assert_allclose(below, near @ image.grid.world_from_index, atol=1e-9)


def test_a_volume_under_a_warp_is_refused_with_what_to_do(scene: Any) -> None:
    from RetRegLib.scene.transform_nodes import transform_node
    from RetRegLib.scene.volumes import image_from_volume, volume_from_image

    node = volume_from_image(image_on(GRIDS["oblique"]), "the volume", scene)
    warp = transform_node(spline(20), "the warp", scene)
    node.SetAndObserveTransformNodeID(warp.GetID())
    with pytest.raises(InputError, match=r"the volume lies under .* the warp, .* harden it"):
        image_from_volume(node)


def test_a_copy_of_the_voxels_is_taken(scene: Any) -> None:
    from RetRegLib.scene.volumes import image_from_volume, volume_from_image

    node = volume_from_image(image_on(GRIDS["oblique"]), "volume", scene)
    image = image_from_volume(node)
    before = image.array.copy()
    node.GetImageData().GetPointData().GetScalars().Fill(7)
    np.testing.assert_array_equal(image.array, before)
    assert image.array.flags.c_contiguous


@pytest.mark.parametrize(("given", "kept"), [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_alpha_is_dropped(scene: Any, given: int, kept: int) -> None:
    from RetRegLib.scene.volumes import image_from_volume, volume_from_image

    image = image_on(GRIDS["one slice"], given, "uint8")
    back = image_from_volume(volume_from_image(image, "picture", scene))
    np.testing.assert_array_equal(back.array, image.array[:kept])


def test_labels_stay_labels(scene: Any) -> None:
    from RetRegLib.scene.volumes import is_label, volume_from_image

    node = volume_from_image(image_on(GRIDS["oblique"]), "labels", scene, label=True)
    assert node.GetClassName() == "vtkMRMLLabelMapVolumeNode"
    assert is_label(node)


def test_half_precision_becomes_single(scene: Any) -> None:
    from RetRegLib.scene.volumes import image_from_volume, volume_from_image

    grid = GRIDS["oblique"]
    image = Image(np.full((1, *grid.shape), 0.5, np.float16), grid)
    assert image_from_volume(volume_from_image(image, "v", scene)).array.dtype == np.float32


def test_what_is_no_image_is_refused(scene: Any) -> None:
    import vtk

    from RetRegLib.scene.volumes import image_from_volume

    with pytest.raises(InputError, match="choose"):
        image_from_volume(None)
    with pytest.raises(InputError, match="not a volume"):
        image_from_volume(scene.AddNewNodeByClass("vtkMRMLModelNode", "a model"))
    node = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "a volume")
    with pytest.raises(InputError, match="a volume holds no voxels"):
        image_from_volume(node)
    data = vtk.vtkImageData()
    data.SetDimensions(3, 3, 3)
    data.AllocateScalars(vtk.VTK_FLOAT, 6)
    node.SetAndObserveImageData(data)
    with pytest.raises(InputError, match="6 values per voxel"):
        image_from_volume(node)


@pytest.mark.parametrize(("modality", "content"), [("MR", "scan"), ("OP", "photograph"), ("", "")])
def test_the_modality_that_slicer_noted_goes_along(
    scene: Any, slicer: Any, modality: str, content: str
) -> None:
    from RetRegLib.scene.volumes import image_from_volume, volume_from_image

    node = volume_from_image(image_on(GRIDS["one slice"]), "slice", scene)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(
        hierarchy.GetSceneItemID(), node
    )
    if modality:
        hierarchy.SetItemAttribute(item, "DICOM.Modality", modality)
    assert image_from_volume(node).about.content == content
