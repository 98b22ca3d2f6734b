"""What people know of two images before they are registered: masks, and where about one lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from retreg.errors import InputError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.placement_numbers import placement_numbers
from retreg.transforms import Affine
from RetRegLib.scene.nodes import Node, array_of, flipped_placement, parents, world_from_node
from RetRegLib.scene.transform_nodes import transform_of
from RetRegLib.scene.volumes import image_from_volume


@dataclass(frozen=True)
class Guides:
    """Nodes, or None: masks (see mask_from) of both images, and a transform (see initial_from)."""

    fixed_mask: Any = None
    moving_mask: Any = None
    initial: Any = None


NO_GUIDES = Guides()


def mask_from(node: Node, below: Node | None = None) -> Image:
    """A mask from a label map, another volume, or all segments of a segmentation.

    below: see volumes.grid_of_volume. Raises InputError for what is none of them or is empty.
    """
    if not node.IsA("vtkMRMLSegmentationNode"):
        return image_from_volume(node, below)
    merged = slicer.vtkOrientedImageData()
    is_drawn = node.GetSegmentation().GetNumberOfSegments() > 0
    if not (is_drawn and node.GenerateMergedLabelmapForAllSegments(merged, 0, None)):
        raise InputError(f"{node.GetName()} holds no segment to be a mask; draw one.")
    to_ras = vtk.vtkMatrix4x4()
    merged.GetImageToWorldMatrix(to_ras)
    first = np.eye(4)
    first[:3, 3] = merged.GetExtent()[::2]
    placement = world_from_node(node, below) @ flipped_placement(array_of(to_ras)) @ first
    grid = Grid(merged.GetDimensions(), placement)
    labels = numpy_support.vtk_to_numpy(merged.GetPointData().GetScalars())
    return Image((labels.reshape(1, *grid.shape) > 0).astype(np.uint8), grid)


def initial_from(node: Node, fixed: Grid, moving: Node) -> Affine:
    """The affine from fixed to moving points (LPS mm) that is nearest to a transform node.

    The node is one that would bring the moving image onto the fixed one. Raises InputError when
    the moving image lies under it already, or it is of a kind that cannot be read.
    """
    if node in parents(moving):
        raise InputError(
            f"{moving.GetName()} lies under {node.GetName()} already and is registered from where "
            "it is shown; choose no transform to start near, or take the image out of it."
        )
    return Affine(placement_numbers(transform_of(node), fixed).matrix)
