"""Registering the same two images again: the new result takes the nodes of the last one."""

from __future__ import annotations

from dataclasses import fields, replace

from RetRegLib.scene.folders import hierarchy_of, items_below
from RetRegLib.scene.outcome import Outcome
from RetRegLib.scene.output_nodes import OutputNodes
from RetRegLib.scene.parameters import Parameters


def same_pair(outcome: Outcome | None, other: Parameters | Outcome) -> bool:
    """Whether another order or outcome is for the images that an outcome registered."""
    if outcome is None:
        return False
    return other.fixed is outcome.fixed and other.moving is outcome.moving


def wanted_again(wanted: OutputNodes, outcome: Outcome) -> OutputNodes:
    """The nodes of the outcome wherever no other one was chosen.

    The transform being the same, the images are registered as they lie without it.
    """
    free = [field.name for field in fields(OutputNodes) if getattr(wanted, field.name) is None]
    kept = {name: getattr(outcome, name) for name in free}
    there = {name: node for name, node in kept.items() if node.GetScene() is not None}
    return replace(wanted, **there)


def clear_away(old: Outcome, new: Outcome) -> None:
    """Remove what is left of the old outcome, with its folder."""
    scene = new.fixed.GetScene()
    hierarchy = hierarchy_of(scene)
    folders = items_below(hierarchy, hierarchy.GetSceneItemID())
    has_own_folder = old.folder != new.folder and old.folder in folders
    inside = items_below(hierarchy, old.folder) if has_own_folder else []
    for node in (*old.made, *map(hierarchy.GetItemDataNode, inside)):
        if node is not None and node not in new.made and node.GetScene() is not None:
            scene.RemoveNode(node)
    if has_own_folder:
        hierarchy.RemoveItem(old.folder, False, True)
