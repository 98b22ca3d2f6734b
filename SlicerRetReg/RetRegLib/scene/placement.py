"""Where the result goes above the moving image, and what happens when it is removed.

The result maps world to world, so it belongs on top of the transforms that place the moving image:
above the topmost one, not instead of it. Where the fixed image shares that one, it would be moved
too; then the moving image gets a transform of its own that places it as before.

An earlier result is no such transform: the image is taken out of it and put under the new one,
unless people ask for the new one to go on top.
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

RECORD = "RetReg.record"  # reference of a node to what belongs to it alone
_RESULT = "RetReg.result"  # marks the transform of a result
_OWN = "RetReg.placement"  # marks a transform that places one node as its former parent did
_FORMER = "RetReg.former"  # its reference to that parent


@dataclass(frozen=True)
class Placement:
    """What was put under a result, and how to take it out again.

    top: what hangs under the result: the node itself, or the topmost transform that places it.
    earlier: the result that it was taken from, or None. under: the earlier result on top of which
    the new one was put, or None.
    """

    top: Node
    earlier: Any = None
    under: Any = None

    def place(self, transform: Node) -> None:
        """Put it under a result."""
        above = [self.under, transform] if self.under is not None else [transform]
        for node, parent in zip([self.top, *above], above, strict=False):
            if node.GetScene() is not None and parent.GetScene() is not None:
                node.SetAndObserveTransformNodeID(parent.GetID())

    def restore(self) -> None:
        """Put it back to where it was before, once nothing moves it any more."""
        scene = self.top.GetScene()
        if scene is None or self.under is not None or self.top.GetParentTransformNode() is not None:
            return
        if self.earlier is not None and self.earlier.GetScene() is not None:
            self.place(self.earlier)
        elif self.top.GetAttribute(_OWN):
            former = self.top.GetNodeReference(_FORMER)
            for node in _children(self.top):
                node.SetAndObserveTransformNodeID(former.GetID() if former is not None else None)
            scene.RemoveNode(self.top)

    @property
    def own(self) -> Node | None:
        """The transform that was made for this placement alone."""
        return self.top if self.top.GetAttribute(_OWN) else None


def mark_result(transform: Node) -> None:
    """Let a transform node be known as that of a result."""
    transform.SetAttribute(_RESULT, "1")


def disregarded(node: Node | None, replaced: Node | None, on_top: bool) -> Node | None:
    """The transform above which nothing counts when the node is registered, or None.

    replaced: the transform that takes the result. An earlier result does not count either, unless
    the new one is to go on top of what it shows.
    """
    if node is None or on_top or not node.IsA("vtkMRMLTransformableNode"):
        return replaced
    for parent in parents(node):
        if parent is replaced or parent.GetAttribute(_RESULT):
            return parent
    return replaced


def place_under(
    transform: Node, moving: Node, fixed: Node, undo: Undo, below: Node | None = None
) -> Placement:
    """Put the moving node, with the transforms that place it, under the result.

    below: see disregarded. Raises InputError when the result would move the fixed image.
    """
    if transform in parents(fixed):
        raise InputError(
            f"{fixed.GetName()} lies under {transform.GetName()}, which would move it along; "
            "choose another transform for the result."
        )
    above = parents(moving, below)
    result = next((n for n, parent in enumerate(above) if parent.GetAttribute(_RESULT)), None)
    if result is not None:  # people want it on top of what that one shows
        undo.parent_of(above[-1])
        above[-1].SetAndObserveTransformNodeID(transform.GetID())
        return Placement([moving, *above][result], under=above[result])
    shared = bool(above) and above[-1] in parents(fixed)
    top = _own_transform(moving, below) if shared else above[-1] if above else moving
    earlier = top.GetParentTransformNode() if not shared else below
    undo.parent_of(top)
    top.SetAndObserveTransformNodeID(transform.GetID())
    if shared:
        undo.parent_of(moving)
        moving.SetAndObserveTransformNodeID(top.GetID())
    return Placement(top, None if earlier is transform else earlier)


def _own_transform(moving: Node, below: Node | None) -> Node:
    name = f"{moving.GetName()} as it was placed"
    own = moving.GetScene().AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    own.SetAttribute(_OWN, "1")
    own.SetNodeReferenceID(_FORMER, moving.GetTransformNodeID())
    to_world = flipped_map(world_from_node(moving, below))
    own.SetMatrixTransformToParent(vtk_matrix(to_world))
    return own


def _children(transform: Node) -> list[Node]:
    """The nodes right below a transform node."""
    scene = transform.GetScene()
    found = [
        scene.GetNthNodeByClass(n, "vtkMRMLTransformableNode")
        for n in range(scene.GetNumberOfNodesByClass("vtkMRMLTransformableNode"))
    ]
    return [node for node in found if node.GetParentTransformNode() is transform]


class PlacementObserver:
    """Tidies up when nodes of a result are removed, by whom and how ever.

    When the transform goes, what it moved returns to its former place, and show_again is called
    with the IDs of all nodes of the result. Display nodes leave with the nodes that they show. The
    scene keeps the caretaker alive, until nothing is left.
    """

    def __init__(
        self,
        scene: Node,
        transform: Node,
        placements: Sequence[Placement],
        made: Sequence[Node],
        show_again: Callable[[Collection[str]], object],
    ) -> None:
        self._scene, self._transform, self._placements = scene, transform, tuple(placements)
        self._show_again = show_again
        self._made = [node for node in (*made, *(p.own for p in placements)) if node is not None]
        self._known = {node.GetID() for node in self._made}
        self._observer = scene.AddObserver(
            slicer.vtkMRMLScene.NodeRemovedEvent, partial(_on_removed, self)
        )

    def watch(self, node: Node) -> None:
        """Look after another node."""
        self._made.append(node)
        self._known.add(node.GetID())

    def place(self) -> None:
        """Let this result, and no other one, move what was registered."""
        self._transform.SetAndObserveTransformNodeID(None)
        for placement in self._placements:
            placement.place(self._transform)

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
            for placement in self._placements:
                placement.restore()
            self._show_again(self._known)
        for node in gone:
            for other in _belongings(node, self._scene):
                if other.GetScene() is not None:
                    self._scene.RemoveNode(other)
        if not self._made:
            self.retire()

    def retire(self) -> None:
        """Watch no longer."""
        self._scene.RemoveObserver(self._observer)


def _on_removed(caretaker: PlacementObserver, _scene: Any, _event: str) -> None:
    caretaker.tidy()


def _belongings(node: Node, scene: Node) -> list[Node]:
    """The display, storage and record nodes of a node that has just left the scene."""
    if not node.IsA("vtkMRMLStorableNode"):
        return []
    ids = [node.GetNthStorageNodeID(n) for n in range(node.GetNumberOfStorageNodes())]
    if node.IsA("vtkMRMLDisplayableNode"):
        ids += [node.GetNthDisplayNodeID(n) for n in range(node.GetNumberOfDisplayNodes())]
    ids.append(node.GetNodeReferenceID(RECORD))
    found = [scene.GetNodeByID(identity) for identity in ids if identity]
    return [other for other in found if other is not None]
