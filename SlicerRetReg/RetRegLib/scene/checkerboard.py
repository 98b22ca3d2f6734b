"""A checkerboard of the fixed and the registered moving image: edges must run on from tile to tile.

Slicer's slice views blend two volumes, but have no checkerboard; so it is a volume of its own.
"""

from __future__ import annotations

import numpy as np

from retreg.image import Image
from RetRegLib.scene.nodes import Node
from RetRegLib.scene.outcome import Outcome
from RetRegLib.scene.slice_views import show_alone
from RetRegLib.scene.volumes import fill_volume, volume_from_image, voxels_of_volume

TILES = 8
_ROLE = "RetReg.checkerboard"


def show_checkerboard(outcome: Outcome, tiles: int = TILES) -> Node:
    """Show the checkerboard of the fixed and the warped volume in every slice view.

    tiles: along the longest side. The volume, in the folder of the outcome, is used again.
    """
    parent = outcome.fixed.GetParentTransformNode()
    fixed = voxels_of_volume(outcome.fixed, parent)
    image = checkerboard(fixed, voxels_of_volume(outcome.warped, parent), tiles)
    node = outcome.transform.GetNodeReference(_ROLE)
    if node is None:
        name = outcome.warped.GetName().replace("warped", "checkerboard")
        node = volume_from_image(image, name, outcome.fixed.GetScene())
        outcome.adopt(node)
        outcome.transform.SetNodeReferenceID(_ROLE, node.GetID())
    fill_volume(node, image)
    node.SetAndObserveTransformNodeID(parent.GetID() if parent is not None else None)
    show_alone(node)
    return node


def checkerboard(first: Image, second: Image, tiles: int = TILES) -> Image:
    """Tiles of two images on one grid in turn, 8 bits deep, as colour when one of them is.

    Grey values are stretched from their 1st to their 99th percentile, so that contrasts of
    different scanners can be compared.
    """
    colour = max(len(first.array), len(second.array)) > 1
    shown = [_shown(image.array, colour) for image in (first, second)]
    edges = first.grid.spacing * first.grid.size
    side_mm = edges.max() / tiles
    k, j, i = (
        np.arange(n) * first.grid.spacing[2 - axis] for axis, n in enumerate(first.grid.shape)
    )
    number = (k // side_mm)[:, None, None] + (j // side_mm)[:, None] + i // side_mm
    return Image(np.where(number % 2 == 0, *shown), first.grid)


def _shown(array: np.ndarray, colour: bool) -> np.ndarray:
    if len(array) < 3:
        low, high = np.percentile(array[0], (1, 99))
        share = (array[:1].astype(np.float32) - low) / max(high - low, 1e-12)
        array = (np.clip(share, 0, 1) * 255).astype(np.uint8)
        return array.repeat(3, axis=0) if colour else array
    if array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        array = ((array.astype(np.float32) - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    return array[:3]
