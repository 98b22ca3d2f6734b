"""Outcomes of a scene that was loaded, or of calls from the console."""

from __future__ import annotations

from collections.abc import Collection

import slicer

from retreg.errors import InputError
from RetRegLib.scene.folders import hierarchy_of
from RetRegLib.scene.nodes import Node
from RetRegLib.scene.outcome import Outcome
from RetRegLib.scene.placement import PlacementObserver
from RetRegLib.scene.records import (
    is_record_keeper,
    recorded_companions,
    recorded_nodes,
    recorded_placements,
    recorded_result,
    texts,
)
from RetRegLib.scene.reports import edit_of
from RetRegLib.scene.transform_nodes import carrier_of, keep_linear
from RetRegLib.scene.volumes import grid_of_volume

_KINDS = {
    "transform": "vtkMRMLTransformNode",
    "fixed_keypoints": "vtkMRMLMarkupsFiducialNode",
    "moving_keypoints": "vtkMRMLMarkupsFiducialNode",
    "lines": "vtkMRMLModelNode",
    "warped": "vtkMRMLScalarVolumeNode",
    "metrics": "vtkMRMLTableNode",
    "fixed": "vtkMRMLScalarVolumeNode",
    "moving": "vtkMRMLScalarVolumeNode",
}


def saved_outcomes(scene: Node, known: Collection[Outcome] = ()) -> list[Outcome]:
    """What a scene holds of results beside those that are known, in the order of their making.

    Whatever is damaged, or lacks its images, transform or keypoints, is left out.
    """
    keepers = [outcome.provenance for outcome in known]
    found = []
    for node in texts(scene):
        if node not in keepers and is_record_keeper(node):
            try:
                found.append(_rebuilt(node))
            except InputError:
                continue
    return found


def _rebuilt(keeper: Node) -> Outcome:
    scene, result = keeper.GetScene(), recorded_result(keeper)
    nodes = recorded_nodes(keeper, tuple(_KINDS))
    nodes = {  # what was deleted is there as in the session: a node without a scene
        role: getattr(slicer, _KINDS[role])() if node is None else node
        for role, node in nodes.items()
    }
    transform = nodes["transform"]
    carrier = carrier_of(result.transform, grid_of_volume(nodes["fixed"]))
    if edit_of(keeper):
        keep_linear(transform.GetTransformFromParent())
    else:
        transform.SetAndObserveTransformFromParent(carrier)
    made = [node for node in (*nodes.values(), keeper) if node.GetScene() is not None]
    made = [node for node in made if node not in (nodes["fixed"], nodes["moving"])]
    caretaker = PlacementObserver(
        scene, transform, recorded_placements(keeper), made, lambda _made: None
    )
    hierarchy = hierarchy_of(scene)
    folder = int(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(keeper)))
    also = recorded_companions(keeper)
    kept = {"provenance": keeper, "carrier": carrier, "caretaker": caretaker, "also": also}
    return Outcome(result, folder, **nodes, **kept)
