"""Nodes that people chose for a result, and whether they can take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from retreg.errors import InputError
from RetRegLib.scene.nodes import Node, parents
from RetRegLib.scene.volumes import grid_of_volume, is_label, volume_class, voxels_of_volume


@dataclass(frozen=True)
class OutputNodes:
    """Nodes to be filled with the result; a new one is made for each that is None."""

    transform: Node | None = None
    warped: Node | None = None
    fixed_keypoints: Node | None = None
    moving_keypoints: Node | None = None


def check_output_nodes(
    wanted: OutputNodes, fixed: Node, moving: Node, below: Node | None = None
) -> None:
    """Raise InputError unless the nodes can take the result; below: see placement.disregarded."""
    grid_of_volume(fixed)
    channels = len(voxels_of_volume(moving, below or wanted.transform).array)
    if fixed is moving:
        raise InputError(f"{fixed.GetName()} is both fixed and moving; choose two volumes.")
    expected = {
        "transform": "vtkMRMLTransformNode",
        "warped": volume_class(channels, is_label(moving)),
        "fixed_keypoints": "vtkMRMLMarkupsFiducialNode",
        "moving_keypoints": "vtkMRMLMarkupsFiducialNode",
    }
    chosen = [getattr(wanted, field.name) for field in fields(wanted)]
    for name, kind in expected.items():
        node = getattr(wanted, name)
        if node is None:
            continue
        if node.GetScene() is None:
            raise InputError(f"{node.GetName()} is no longer there; choose another one or none.")
        exact = name == "warped"
        if not (node.GetClassName() == kind if exact else node.IsA(kind)):
            raise InputError(
                f"{node.GetName()} cannot hold the {name.replace('_', ' ')}: it is a "
                f"{node.GetClassName()}, but a {kind} is needed; choose another one or none."
            )
        if node in (fixed, moving) or chosen.count(node) > 1:
            raise InputError(f"{node.GetName()} is used twice; choose another one or none.")


def check_companions(also: Sequence[Node], fixed: Node) -> None:
    """Raise InputError unless the nodes can go along with the moving image."""
    for node in also:
        if node.GetScene() is None:
            raise InputError("What was to go along with the moving image is no longer there.")
        if not node.IsA("vtkMRMLTransformableNode") or node in (fixed, *parents(fixed)):
            raise InputError(
                f"{node.GetName()} cannot go along with the moving image: it is the fixed one, or "
                "no transform can move it; choose what belongs to the moving image only."
            )
