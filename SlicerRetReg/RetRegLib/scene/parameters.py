"""What the panel is set to, kept in the scene, so that it is saved, loaded and closed with it.

Volumes and outputs are node references, which survive renaming and the new ids of an imported
scene; everything else is JSON in a parameter of the module's own vtkMRMLScriptedModuleNode.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from retreg.messages import Scalar

MODULE = "RetReg"
REFERENCE = {"reference": True}
REFERENCES = {"references": True}


@dataclass(frozen=True, eq=False)
class Parameters:
    """One registration as it is ordered.

    fixed, moving: volume nodes, or None. transform, warped, fixed_keypoints, moving_keypoints:
    nodes that take the result; None means that a new one is made. fixed_mask, moving_mask: volumes
    or segmentations that are 0 where an image does not count. initial: a transform node near which
    the result is looked for. more: further moving volumes,
    registered one after the other. also: nodes that go with the first one. keep: whether earlier
    results of the same images stay. on_top: whether it starts from what an earlier result shows.
    model: its name, "" lets the server choose. family: of the transform, "" is the default of the
    model. smoothing: of splines, 0 to infinity. options: what else differs from the defaults of
    the model, by name.
    """

    fixed: Any = field(default=None, metadata=REFERENCE)
    moving: Any = field(default=None, metadata=REFERENCE)
    transform: Any = field(default=None, metadata=REFERENCE)
    warped: Any = field(default=None, metadata=REFERENCE)
    fixed_keypoints: Any = field(default=None, metadata=REFERENCE)
    moving_keypoints: Any = field(default=None, metadata=REFERENCE)
    fixed_mask: Any = field(default=None, metadata=REFERENCE)
    moving_mask: Any = field(default=None, metadata=REFERENCE)
    initial: Any = field(default=None, metadata=REFERENCE)
    more: tuple[Any, ...] = field(default=(), metadata=REFERENCES)
    also: tuple[Any, ...] = field(default=(), metadata=REFERENCES)
    keep: bool = False
    on_top: bool = False
    model: str = ""
    family: str = ""
    smoothing: float = 0.1
    options: Mapping[str, Scalar] = field(default_factory=dict)


def parameter_node(scene: Any) -> Any:
    """The node of the scene that holds the parameters; made when there is none."""
    import slicer

    node = scene.GetSingletonNode(MODULE, "vtkMRMLScriptedModuleNode")
    if node is None:
        node = slicer.vtkMRMLScriptedModuleNode()
        node.SetSingletonTag(MODULE)
        node.SetName(MODULE)
        node = scene.AddNode(node)
    node.SetModuleName(MODULE)  # closing a scene clears it
    node.SetAttribute("ModuleName", MODULE)
    return node


def read_parameters(node: Any) -> Parameters:
    """The parameters in a node; what is missing or damaged has its default."""
    plain = Parameters()
    values: dict[str, Any] = {}
    for each in fields(Parameters):
        if each.metadata == REFERENCE:
            values[each.name] = node.GetNodeReference(each.name)
        elif each.metadata == REFERENCES:
            values[each.name] = referenced(node, each.name)
        else:
            values[each.name] = _parsed(node.GetParameter(each.name), getattr(plain, each.name))
    return Parameters(**values)


def write_parameters(node: Any, parameters: Parameters) -> None:
    """Keep the parameters in a node."""
    before = node.StartModify()
    for each in fields(Parameters):
        value = getattr(parameters, each.name)
        if each.metadata == REFERENCE:
            node.SetNodeReferenceID(each.name, value.GetID() if value else None)
        elif each.metadata == REFERENCES:
            node.RemoveNodeReferenceIDs(each.name)
            for other in value:
                node.AddNodeReferenceID(each.name, other.GetID())
        else:
            node.SetParameter(each.name, json.dumps(value))
    node.EndModify(before)


def referenced(node: Any, role: str) -> tuple[Any, ...]:
    """All nodes that a node refers to in one role, as far as they are there."""
    count = node.GetNumberOfNodeReferences(role)
    nodes = (node.GetNthNodeReference(role, n) for n in range(count))
    return tuple(other for other in nodes if other is not None)


def _parsed(text: str, default: Any) -> Any:
    """The value in the text when it is of the type of the default, else the default."""
    try:
        value = json.loads(text)
    except ValueError:
        return default
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if isinstance(value, type(default)) else default
