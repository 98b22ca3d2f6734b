"""The moving volume on the voxels of the fixed one."""

from __future__ import annotations

from retreg.image import Image
from retreg.resample import resample
from retreg.transforms import Transform
from RetRegLib.nodes import Node
from RetRegLib.volumes import grid_of_volume, is_label, voxels_of_volume


def warped_image(fixed: Node, moving: Node, transform: Transform, below: Node | None) -> Image:
    """The moving volume, as placed below the transform node, on the voxels of the fixed one.

    The grid is that of the fixed node itself, without its parents. Labels stay labels. Beyond the
    moving volume lies its background, 0 for labels.
    """
    image = voxels_of_volume(moving, below)
    values = resample(image, transform, grid_of_volume(fixed), nearest=is_label(moving)).array
    return Image(values, grid_of_volume(fixed, fixed.GetParentTransformNode()))


def look_alike(node: Node, original: Node) -> None:
    """Show a volume with the colours, window and level of another one."""
    display, other = node.GetDisplayNode(), original.GetDisplayNode()
    if display is not None and other is not None and display.GetClassName() == other.GetClassName():
        display.CopyContent(other)
        if display.IsA("vtkMRMLScalarVolumeDisplayNode"):
            display.SetAutoWindowLevel(False)  # which would choose others for other borders
            display.SetWindowLevel(other.GetWindow(), other.GetLevel())
        if other.GetColorNodeID():
            display.SetAndObserveColorNodeID(other.GetColorNodeID())
