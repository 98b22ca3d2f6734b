"""Volume nodes and images: voxels, and where they lie in the world."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from retreg.about import About, Content
from retreg.errors import InputError
from retreg.geometry import Grid
from retreg.image import MAX_CHANNELS, Image
from retreg.resample import resample
from retreg.transforms import Transform
from RetRegLib.scene.folders import hierarchy_of
from RetRegLib.scene.nodes import Node, array_of, flipped_placement, vtk_matrix, world_from_node

_WITHOUT_ALPHA = {2: 1, 4: 3}
_CONTENTS: dict[str, Content] = {
    "MR": "scan", "CT": "scan", "PT": "scan", "NM": "scan", "OP": "photograph",
}  # fmt: skip


def is_label(node: Node) -> bool:
    """Whether a volume holds labels, which must not be blended."""
    return bool(node.IsA("vtkMRMLLabelMapVolumeNode"))


def grid_of_volume(node: Node | None, below: Node | None = None) -> Grid:
    """The grid of a volume node in the world, its linear parent transforms included.

    below: a transform node; only the parents under it count (see nodes.world_from_node).
    Raises InputError, with what to do, for what is no image or lies under a warp.
    """
    data = _checked(node).GetImageData()
    index_to_ras = vtk.vtkMatrix4x4()
    assert node is not None
    node.GetIJKToRASMatrix(index_to_ras)
    node_from_index = flipped_placement(array_of(index_to_ras))
    return Grid(data.GetDimensions(), world_from_node(node, below) @ node_from_index)


def image_from_volume(node: Node | None, below: Node | None = None) -> Image:
    """A copy of the voxels of a scalar, colour or label volume, on grid_of_volume.

    An alpha channel is dropped. Raises InputError for what is no image, has more than four
    channels, or lies under a warp.
    """
    view = voxels_of_volume(node, below)
    return Image(view.array.copy(order="C"), view.grid, view.about)


def voxels_of_volume(node: Node | None, below: Node | None = None) -> Image:
    """As image_from_volume, but without a copy: good until the node changes."""
    grid = grid_of_volume(node, below)
    assert node is not None
    scalars = node.GetImageData().GetPointData().GetScalars()
    channels = scalars.GetNumberOfComponents()
    if channels > MAX_CHANNELS:
        raise InputError(
            f"{node.GetName()} has {channels} values per voxel; at most {MAX_CHANNELS} are "
            "supported, so choose one of its frames or channels."
        )
    voxels = numpy_support.vtk_to_numpy(scalars).reshape(*grid.shape, channels)
    array = np.moveaxis(voxels, -1, 0)[: _WITHOUT_ALPHA.get(channels, channels)]
    return Image(array, grid, About(content=_CONTENTS.get(_modality(node), "")))


def _modality(node: Node) -> str:
    """The DICOM modality that Slicer noted when it loaded the volume, such as MR; or nothing."""
    if node.GetScene() is None:
        return ""
    hierarchy = hierarchy_of(node.GetScene())
    item = hierarchy.GetItemByDataNode(node)
    return str(hierarchy.GetItemAttribute(item, "DICOM.Modality")) if item else ""


def volume_from_image(image: Image, name: str, scene: Node, label: bool = False) -> Node:
    """A new volume node: scalar for one channel, else colour; a label map where asked for."""
    node = scene.AddNewNodeByClass(volume_class(len(image.array), label), name)
    fill_volume(node, image)
    node.CreateDefaultDisplayNodes()
    return node


def volume_class(channels: int, label: bool) -> str:
    """The class of node for so many channels."""
    if label:
        return "vtkMRMLLabelMapVolumeNode"
    return "vtkMRMLScalarVolumeNode" if channels == 1 else "vtkMRMLVectorVolumeNode"


def fill_volume(node: Node, image: Image) -> None:
    """Give a volume node the voxels and the grid of an image; its parent transform stays."""
    kind = image.array.dtype
    kept = image.array.astype(np.float32) if kind == np.float16 else image.array
    data = vtk.vtkImageData()
    data.SetDimensions(*image.grid.size)
    data.AllocateScalars(numpy_support.get_vtk_array_type(kept.dtype), len(kept))
    voxels = numpy_support.vtk_to_numpy(data.GetPointData().GetScalars())
    voxels.reshape(*image.grid.shape, len(kept))[:] = np.moveaxis(kept, 0, -1)
    placement = vtk_matrix(flipped_placement(image.grid.world_from_index))
    with slicer.util.NodeModify(node):
        node.SetIJKToRASMatrix(placement)
        node.SetAndObserveImageData(data)
        if node.IsA("vtkMRMLVectorVolumeNode") and len(kept) == 3:
            node.SetVoxelVectorType(node.VoxelVectorTypeColorRGB)


def _checked(node: Node | None) -> Node:
    if node is None:
        raise InputError("No image was chosen; choose a fixed and a moving volume.")
    if not node.IsA("vtkMRMLVolumeNode"):
        raise InputError(f"{node.GetName()} is not a volume; choose an image.")
    data = node.GetImageData()
    if data is None or data.GetNumberOfPoints() == 0 or data.GetPointData().GetScalars() is None:
        raise InputError(f"{node.GetName()} holds no voxels; load the image again.")
    return node


def warped_image(fixed: Node, moving: Node, transform: Transform, below: Node | None) -> Image:
    """The moving volume, as placed below the transform node, on the voxels of the fixed one.

    The grid is that of the fixed node itself, without its parents. Labels stay labels. Beyond the
    moving volume lies its background, 0 for labels.
    """
    image = voxels_of_volume(moving, below)
    values = resample(image, transform, grid_of_volume(fixed), nearest=is_label(moving)).array
    return Image(values, grid_of_volume(fixed, fixed.GetParentTransformNode()))


def copy_display(node: Node, original: Node) -> None:
    """Show a volume with the colours, window and level of another one."""
    display, other = node.GetDisplayNode(), original.GetDisplayNode()
    if display is not None and other is not None and display.GetClassName() == other.GetClassName():
        display.CopyContent(other)
        if display.IsA("vtkMRMLScalarVolumeDisplayNode"):
            display.SetAutoWindowLevel(False)  # which would choose others for other borders
            display.SetWindowLevel(other.GetWindow(), other.GetLevel())
        if other.GetColorNodeID():
            display.SetAndObserveColorNodeID(other.GetColorNodeID())
