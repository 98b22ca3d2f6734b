"""Volumes of the scene and the DICOM objects in Slicer's database that they were loaded from.

Slicer notes the instances of a volume at its node. A scan lies in the scene where its files put it;
a photograph has no place, and lies where Slicer's reader happened to put it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from retreg.dicom.source import Source, source_from
from retreg.errors import InputError
from retreg.files.dicom_registration import ImageSet
from retreg.files.dicom_series import slice_in
from retreg.files.doors import reading
from retreg.geometry import Grid
from retreg.transforms import Affine
from RetRegLib.scene.nodes import Node
from RetRegLib.scene.volumes import grid_of_volume

INSTANCES = "DICOM.instanceUIDs"
_FRAME_OF_REFERENCE = "0020,0052"
_NEAR_MM = 0.01


def instances_of(node: Node) -> frozenset[str]:
    """The UIDs of the instances that a volume was loaded from; none if it was not from DICOM."""
    return frozenset((node.GetAttribute(INSTANCES) or "").split())


def volume_of(images: ImageSet, scene: Node, database: Any) -> Node | None:
    """The volume in the scene that shows these images, if there is exactly one.

    By instances where some are named, else by the frame of reference.
    """
    volumes = [node for node in _volumes(scene) if instances_of(node)]
    found = [node for node in volumes if images.is_same(_images(node, database))]
    return found[0] if len(found) == 1 else None


def source_of_volume(node: Node, database: Any) -> Source:
    """What the volume was loaded from. Raises InputError when that is not in the database."""
    paths = [database.fileForInstance(uid) for uid in sorted(instances_of(node))]
    if not paths or not all(path and Path(path).is_file() for path in paths):
        raise InputError(
            f"The volume {node.GetName()} was not loaded from Slicer's DICOM database, so no DICOM "
            "object can refer to it; load it with the module DICOM and register it again."
        )
    with reading("A DICOM file", "DICOM"):
        slices = [slice_in(Path(path), is_whole=True) for path in paths]
        return source_from([each for each in slices if each is not None], "The volume")


def stored_grid(node: Node, source: Source) -> Grid:
    """Where the voxels of a node lie in the world of its files, LPS mm.

    For a scan that is where they lie in the scene, without parent transforms; raises InputError
    when the node was moved since it was loaded.
    """
    own = grid_of_volume(node, node.GetParentTransformNode())
    from_files = source.grid()
    if source.is_placed:
        if own.size[:2] != from_files.size[:2] or not _same_corners(own, from_files):
            raise InputError(
                f"The volume {node.GetName()} is no longer where its DICOM files put it; load it "
                "again and register it without moving or cropping it."
            )
        return own
    if own.size != from_files.size:
        raise InputError(
            f"The volume {node.GetName()} is not as large as its DICOM file; load it again."
        )
    return from_files


def scene_from_stored(node: Node, source: Source, below: Node | None = None) -> Affine:
    """Takes points of the files of a volume, LPS mm, to where the scene shows them.

    below: a transform node; only the parents under it count.
    """
    shown = grid_of_volume(node, below)
    return Affine(shown.world_from_index @ stored_grid(node, source).index_from_world)


def _same_corners(first: Grid, second: Grid) -> bool:
    """Whether both enclose the same voxels, in whatever order Slicer has put the slices."""
    apart = np.linalg.norm(first.corners()[:, None] - second.corners()[None], axis=2)
    return bool(apart.min(axis=1).max() < _NEAR_MM)


def _images(node: Node, database: Any) -> ImageSet:
    instances = instances_of(node)
    frame = database.instanceValue(min(instances), _FRAME_OF_REFERENCE)
    return ImageSet(str(frame or ""), instances)


def _volumes(scene: Node) -> list[Node]:
    found = scene.GetNodesByClass("vtkMRMLVolumeNode")
    return [found.GetItemAsObject(n) for n in range(found.GetNumberOfItems())]
