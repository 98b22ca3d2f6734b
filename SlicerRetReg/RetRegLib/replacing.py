"""Registering the same two images again: the new result takes the nodes of the last one."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import slicer
import vtk

from RetRegLib.outcome import Outcome, Wanted
from RetRegLib.parameters import Parameters


def same_pair(outcome: Outcome | None, other: Parameters | Outcome) -> bool:
    """Whether another order or outcome is for the images that an outcome registered."""
    if outcome is None:
        return False
    return other.fixed is outcome.fixed and other.moving is outcome.moving


def wanted_again(wanted: Wanted, outcome: Outcome) -> Wanted:
    """The nodes of the outcome wherever no other one was chosen.

    The transform being the same, the images are registered as they lie without it.
    """
    free = [field.name for field in fields(Wanted) if getattr(wanted, field.name) is None]
    kept = {name: getattr(outcome, name) for name in free}
    there = {name: node for name, node in kept.items() if node.GetScene() is not None}
    return replace(wanted, **there)


def clear_away(old: Outcome, new: Outcome) -> None:
    """Remove what is left of the old outcome, with its folder."""
    scene = new.fixed.GetScene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    folders = _below(hierarchy, hierarchy.GetSceneItemID())
    has_own_folder = old.folder != new.folder and old.folder in folders
    inside = _below(hierarchy, old.folder) if has_own_folder else []
    for node in (*old.made, *map(hierarchy.GetItemDataNode, inside)):
        if node is not None and node not in new.made and node.GetScene() is not None:
            scene.RemoveNode(node)
    if has_own_folder:
        hierarchy.RemoveItem(old.folder, False, True)


def _below(hierarchy: Any, item: int) -> list[int]:
    found = vtk.vtkIdList()
    hierarchy.GetItemChildren(item, found, True)
    return [found.GetId(n) for n in range(found.GetNumberOfIds())]
