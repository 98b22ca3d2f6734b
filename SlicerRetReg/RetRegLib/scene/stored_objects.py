"""Registrations and keypoints of DICOM files as nodes, in the direction and place of the scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

from retreg.dicom.registration import affine_of
from retreg.files.dicom_fiducials import FiducialSet, read_fiducials
from retreg.files.dicom_registration import read_registration
from retreg.messages import Keypoints
from retreg.transforms import Affine, Chain, Transform
from RetRegLib.scene.dicom_images import scene_from_stored, source_of_volume, volume_of
from RetRegLib.scene.markups import FIXED_LOOK, MOVING_LOOK, markups_from_keypoints
from RetRegLib.scene.nodes import Node
from RetRegLib.scene.transform_nodes import transform_node
from RetRegLib.scene.volumes import grid_of_volume


def load_registration(path: Path, name: str, scene: Node, database: Any) -> Node:
    """A new transform node for a Spatial Registration or a Deformable Spatial Registration.

    It maps fixed to moving points as its transform from parent, and refers to the two volumes
    where they are in the scene. The moving volume is put under it, unless it lies under another
    one. Raises FileError or InputError, with nothing left in the scene.
    """
    stored = read_registration(path)
    fixed = volume_of(stored.fixed, scene, database)
    moving = volume_of(stored.moving, scene, database)
    grid = None if fixed is None else grid_of_volume(fixed)
    node = transform_node(_in_scene(stored.transform, fixed, moving, database), name, scene, grid)
    kind = slicer.vtkMRMLTransformNode
    for role, image in (
        (kind.GetFixedNodeReferenceRole(), fixed),
        (kind.GetMovingNodeReferenceRole(), moving),
    ):
        if image is not None:
            node.SetNodeReferenceID(role, image.GetID())
    if moving is not None and moving.GetParentTransformNode() is None:
        moving.SetAndObserveTransformNodeID(node.GetID())
    return node


def load_fiducials(path: Path, name: str, scene: Node, database: Any) -> tuple[Node, ...]:
    """A new point list for each set of Spatial Fiducials; equal labels are the same place.

    The points follow the volume to which they belong, where it is in the scene. Raises FileError
    or InputError, with nothing left in the scene.
    """
    sets = read_fiducials(path)
    volumes = [volume_of(each.images, scene, database) for each in sets]
    placed = [_points(each, node, database) for each, node in zip(sets, volumes, strict=True)]
    made = []
    for number, (each, points, volume) in enumerate(zip(sets, placed, volumes, strict=True)):
        look = MOVING_LOOK if number % 2 else FIXED_LOOK
        node = markups_from_keypoints(points, f"{name} {number + 1}", scene, look)
        for row, label in enumerate(each.identifiers):
            node.SetNthControlPointLabel(row, label)
        if volume is not None and volume.GetParentTransformNode() is not None:
            node.SetAndObserveTransformNodeID(volume.GetParentTransformNode().GetID())
        made.append(node)
    return tuple(made)


def _in_scene(
    transform: Transform, fixed: Node | None, moving: Node | None, database: Any
) -> Transform:
    """The transform from where the scene shows the fixed volume to the moving volume itself."""
    before = after = Affine.identity()
    if fixed is not None:
        before = scene_from_stored(fixed, source_of_volume(fixed, database)).inverse
    if moving is not None:
        below = moving.GetParentTransformNode()
        after = scene_from_stored(moving, source_of_volume(moving, database), below)
    chain = Chain((before, transform, after))
    return affine_of(chain) or chain


def _points(each: FiducialSet, volume: Node | None, database: Any) -> Keypoints:
    """The points where the scene shows them; those of an absent picture in its pixels."""
    if not each.in_pixels or volume is None:
        return each.points
    source = source_of_volume(volume, database)
    placed = each.placed(source.grid())
    points = scene_from_stored(volume, source, volume.GetParentTransformNode())(placed.points)
    return Keypoints(points, placed.weights, placed.inliers)
