"""Registering the same two images again: the new result takes the nodes of the last one."""

from __future__ import annotations

from dataclasses import fields, replace

import slicer

from RetRegLib.outcome import Outcome, Wanted
from RetRegLib.parameters import Parameters


def same_pair(outcome: Outcome, order: Parameters) -> bool:
    """Whether an order is for the images that an outcome registered."""
    return order.fixed is outcome.fixed and order.moving is outcome.moving


def wanted_again(wanted: Wanted, outcome: Outcome) -> Wanted:
    """The nodes of the outcome wherever no other one was chosen.

    The transform being the same, the images are registered as they lie without it.
    """
    free = [field.name for field in fields(Wanted) if getattr(wanted, field.name) is None]
    kept = {name: getattr(outcome, name) for name in free}
    there = {name: node for name, node in kept.items() if node.GetScene() is not None}
    return replace(wanted, **there)


def clear_away(old: Outcome, new: Outcome) -> None:
    """Remove what is left of the old outcome."""
    scene = new.fixed.GetScene()
    for node in old.made:
        if node not in new.made and node.GetScene() is not None:
            scene.RemoveNode(node)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if hierarchy is not None and old.folder != new.folder and hierarchy.GetItemLevel(old.folder):
        hierarchy.RemoveItem(old.folder, False, False)
