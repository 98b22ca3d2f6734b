"""Changes of a scene that are made completely or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from RetRegLib.scene.nodes import Node


class Undo:
    """Remembers how a scene was, and takes back what was done to it since."""

    def __init__(self, scene: Node) -> None:
        self._scene = scene
        self._before = set(_nodes(scene))
        self._steps: list[Callable[[], object]] = []

    def content_of(self, node: Node) -> None:
        """The content of this node is about to change."""
        backup = node.NewInstance()
        # New voxels come in a new array, so the old one need not be copied.
        backup.CopyContent(node, not node.IsA("vtkMRMLVolumeNode"))
        self._steps.append(lambda: node.CopyContent(backup))

    def parent_of(self, node: Node) -> None:
        """The parent transform of this node is about to change."""
        parent = node.GetTransformNodeID()
        self._steps.append(lambda: node.SetAndObserveTransformNodeID(parent))

    def later(self, step: Callable[[], object]) -> None:
        """What else is to be done to take everything back."""
        self._steps.append(step)

    def take_back(self) -> None:
        """Undo all steps, the last one first, and remove what was added."""
        for step in reversed(self._steps):
            step()
        for node in set(_nodes(self._scene)) - self._before:
            self._scene.RemoveNode(node)


@contextmanager
def all_or_nothing(scene: Node) -> Iterator[Undo]:
    """What happens inside is taken back when it raises."""
    undo = Undo(scene)
    try:
        yield undo
    except BaseException:
        undo.take_back()
        raise


def _nodes(scene: Node) -> list[Node]:
    return [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
