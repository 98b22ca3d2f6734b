"""What a scene remembers of a result, so that work goes on after it was saved and loaded.

The text node with the provenance refers to all nodes of the result, and to a hidden text node with
the result as it came from the server: the message of the protocol. References survive renaming, and
the new identities of an imported scene.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retreg.messages import RegistrationResult
from retreg.wire import decode_result, dumps, encode_result, loads
from RetRegLib.scene.nodes import Node
from RetRegLib.scene.parameters import referenced
from RetRegLib.scene.placement import RECORD, Placement

_ROLE = "RetReg."
_ALSO = "RetReg.also"
_TOP, _EARLIER, _UNDER = "RetReg.top", "RetReg.earlier", "RetReg.under"
_NEEDED = ("transform", "fixed_keypoints", "moving_keypoints", "fixed", "moving")


def record_outcome(
    result: RegistrationResult,
    nodes: Mapping[str, Node],
    placements: Sequence[Placement],
    also: Sequence[Node],
) -> None:
    """Write into the scene what outcome and placements are made of; nodes by their role."""
    keeper = nodes["provenance"]
    record = keeper.GetScene().AddNewNodeByClass(
        "vtkMRMLTextNode", f"{keeper.GetName()} as it came"
    )
    record.SetHideFromEditors(True)
    record.SetText(dumps(encode_result(result)).decode("ascii"))
    keeper.SetNodeReferenceID(RECORD, record.GetID())
    for role, node in nodes.items():
        if node is not keeper:
            keeper.SetNodeReferenceID(_ROLE + role, node.GetID())
    for node in also:
        keeper.AddNodeReferenceID(_ALSO, node.GetID())
    for n, placement in enumerate(placements):
        for role, node in (
            (_TOP, placement.top), (_EARLIER, placement.earlier), (_UNDER, placement.under)
        ):
            if node is not None:
                keeper.SetNodeReferenceID(f"{role}.{n}", node.GetID())


def is_record_keeper(node: Node) -> bool:
    """Whether a node refers to a result that can be gone on with."""
    roles = (RECORD, *(_ROLE + role for role in _NEEDED))
    return all(node.GetNodeReference(role) is not None for role in roles)


def recorded_result(keeper: Node) -> RegistrationResult:
    """The result as it came. Raises InputError when its record is damaged."""
    return decode_result(loads(keeper.GetNodeReference(RECORD).GetText()))


def recorded_nodes(keeper: Node, roles: Sequence[str]) -> dict[str, Node]:
    """The nodes of those roles; None for those that were deleted."""
    return {role: keeper.GetNodeReference(_ROLE + role) for role in roles}


def recorded_placements(keeper: Node) -> list[Placement]:
    """What hangs under the result, and where it came from."""
    found: list[Placement] = []
    while True:
        n = len(found)
        top, earlier, under = (
            keeper.GetNodeReference(f"{role}.{n}") for role in (_TOP, _EARLIER, _UNDER)
        )
        if top is None:
            return found
        found.append(Placement(top, earlier, under))


def recorded_companions(keeper: Node) -> tuple[Node, ...]:
    """What goes along with the moving image."""
    return referenced(keeper, _ALSO)


def texts(scene: Node) -> list[Any]:
    """All text nodes of a scene."""
    kind = "vtkMRMLTextNode"
    return [scene.GetNthNodeByClass(n, kind) for n in range(scene.GetNumberOfNodesByClass(kind))]
