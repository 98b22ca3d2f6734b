"""Slicer's mouse mode in which a click places a point."""

from __future__ import annotations

from RetRegLib.scene.nodes import Node


def start_placing(points: Node) -> None:
    """Every click in a view places a point of this list, until stop_placing or a right click."""
    selection, interaction = _nodes(points.GetScene())
    if selection is not None and interaction is not None:
        selection.SetReferenceActivePlaceNodeClassName(points.GetClassName())
        selection.SetActivePlaceNodeID(points.GetID())
        interaction.SetPlaceModePersistence(1)
        interaction.SetCurrentInteractionMode(interaction.Place)


def stop_placing(scene: Node) -> None:
    """The mouse moves what is shown again."""
    interaction = _nodes(scene)[1]
    if interaction is not None:
        interaction.SetPlaceModePersistence(0)
        interaction.SetCurrentInteractionMode(interaction.ViewTransform)


def is_placing(scene: Node) -> bool:
    """Whether a click would place a point."""
    interaction = _nodes(scene)[1]
    placing = interaction is not None and interaction.GetCurrentInteractionMode()
    return interaction is not None and placing == interaction.Place


def interaction_node(scene: Node) -> Node | None:
    """The node that tells when the mode changes; None without views."""
    return _nodes(scene)[1]


def _nodes(scene: Node) -> tuple[Node | None, Node | None]:
    kinds = ("vtkMRMLSelectionNode", "vtkMRMLInteractionNode")
    selection, interaction = (scene.GetFirstNodeByClass(kind) for kind in kinds)
    return selection, interaction
