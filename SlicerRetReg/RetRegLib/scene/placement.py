"""Where the result goes above the moving image, and what happens when it is removed.

The result maps world to world, so it belongs on top of the transforms that place the moving image:
above the topmost one, not instead of it. Where the fixed image shares that one, it would be moved
too; then the moving image gets a transform of its own that places it as before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import slicer

from retreg.errors import InputError
from RetRegLib.scene.nodes import Node, flipped_map, parents, vtk_matrix, world_from_node
from RetRegLib.scene.undo import Undo

_OWN = "RetReg.placement"  # marks such a transform


@dataclass(frozen=True)
class Placement:
    """The node that was put under the result, and the parent that it had."""

    node: Node
    former_parent: Any
    own: Any = None  # the transform made for it alone

    def restore(self) -> None:
        """Give the node its former parent back, as far as both are still there."""
        former = self.former_parent
        if self.node.GetScene() is not None:
            there = former is not None and former.GetScene() is not None
            self.node.SetAndObserveTransformNodeID(former.GetID() if there else None)


def place_under(transform: Node, moving: Node, fixed: Node, undo: Undo) -> Placement:
    """Put the moving volume, with the transforms that place it, under the result.

    Raises InputError when the result would move the fixed image.
    """
    if transform in parents(fixed):
        raise InputError(
            f"{fixed.GetName()} lies under {transform.GetName()}, which would move it along; "
            "choose another transform for the result."
        )
    above = parents(moving, transform)
    if above and above[-1] in parents(fixed):
        return _placed(moving, transform, undo, _own_transform(moving, transform))
    top = above[-1] if above else moving
    if top.GetAttribute(_OWN):  # made by an earlier result in the same transform
        return _placed(top, transform, undo, top)
    return _placed(top, transform, undo)


def _own_transform(moving: Node, transform: Node) -> Node:
    name = f"{moving.GetName()} as it was placed"
    own = moving.GetScene().AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    own.SetAttribute(_OWN, "1")
    to_world = flipped_map(world_from_node(moving, transform))
    own.SetMatrixTransformToParent(vtk_matrix(to_world))
    return own


def _placed(node: Node, transform: Node, undo: Undo, own: Node | None = None) -> Placement:
    former = node.GetParentTransformNode()
    undo.parent_of(node)
    if own is not None and own is not node:
        undo.parent_of(own)
        own.SetAndObserveTransformNodeID(transform.GetID())
    above = transform if own is None or own is node else own
    node.SetAndObserveTransformNodeID(above.GetID())
    return Placement(node, None if former is transform else former, own)


class PlacementObserver:
    """Tidies up when nodes of a result are removed, by whom and how ever.

    When the transform goes, the moving image returns to its former place, and show_again is called
    with the IDs of all nodes of the result. Display nodes leave with the nodes that they show. The
    scene keeps the caretaker alive, until nothing is left.
    """

    def __init__(
        self,
        scene: Node,
        transform: Node,
        placement: Placement,
        made: Sequence[Node],
        show_again: Callable[[Collection[str]], object],
    ) -> None:
        self._scene, self._transform, self._placement = scene, transform, placement
        self._show_again = show_again
        self._made = [node for node in (*made, placement.own) if node is not None]
        self._known = {node.GetID() for node in self._made}
        self._observer = scene.AddObserver(
            slicer.vtkMRMLScene.NodeRemovedEvent, partial(_on_removed, self)
        )

    def watch(self, node: Node) -> None:
        """Look after another node."""
        self._made.append(node)
        self._known.add(node.GetID())

    def tidy(self) -> None:
        """See what has been removed, and remove what belonged to it."""
        gone = [node for node in self._made if node.GetScene() is None]
        if not gone:
            return
        self._made = [node for node in self._made if node.GetScene() is not None]
        if self._scene.IsClosing():
            self.retire()
            return
        if self._transform in gone:
            self._placement.restore()
            self._show_again(self._known)
            if self._placement.own is not None:
                self._remove(self._placement.own)
        for node in gone:
            for shown in _displays(node, self._scene):
                self._remove(shown)
        if not self._made:
            self.retire()

    def retire(self) -> None:
        """Watch no longer."""
        self._scene.RemoveObserver(self._observer)

    def _remove(self, node: Node) -> None:
        if node.GetScene() is not None:
            self._scene.RemoveNode(node)


def _on_removed(caretaker: PlacementObserver, _scene: Any, _event: str) -> None:
    caretaker.tidy()


def _displays(node: Node, scene: Node) -> list[Node]:
    """The display and storage nodes of a node that has just left the scene."""
    if not node.IsA("vtkMRMLStorableNode"):
        return []
    ids = [node.GetNthStorageNodeID(n) for n in range(node.GetNumberOfStorageNodes())]
    if node.IsA("vtkMRMLDisplayableNode"):
        ids += [node.GetNthDisplayNodeID(n) for n in range(node.GetNumberOfDisplayNodes())]
    found = [scene.GetNodeByID(identity) for identity in ids if identity]
    return [other for other in found if other is not None]
