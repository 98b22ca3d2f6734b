"""Folders of the subject hierarchy, the tree of nodes that people see."""

from __future__ import annotations

from functools import partial

import slicer
import vtk

from RetRegLib.scene.nodes import Node
from RetRegLib.scene.undo import Undo


def hierarchy_of(scene: Node) -> Node:
    """The subject hierarchy of a scene."""
    return slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)


def items_below(hierarchy: Node, below: int) -> list[int]:
    """All items below one, at any depth."""
    found = vtk.vtkIdList()
    hierarchy.GetItemChildren(below, found, True)
    return [int(found.GetId(n)) for n in range(found.GetNumberOfIds())]


def file_node(hierarchy: Node, folder: int, node: Node, undo: Undo) -> None:
    """Put a node into a folder of the subject hierarchy."""
    item = hierarchy.GetItemByDataNode(node)
    if not item:  # outside the application, nobody has made one
        item = hierarchy.CreateItem(folder, node)
        undo.later(partial(hierarchy.RemoveItem, item, False, False))
        return
    undo.later(partial(hierarchy.SetItemParent, item, hierarchy.GetItemParent(item)))
    hierarchy.SetItemParent(item, folder)
