"""Keypoints as point lists that people can see, drag, unselect and delete."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import slicer

from retreg.messages import Keypoints
from RetRegLib.scene.nodes import Node, flipped


@dataclass(frozen=True)
class Look:
    """Colour (red, green, blue from 0 to 1) and shape of the points of a list."""

    colour: tuple[float, float, float]
    glyph: str


# Both are seen where they meet: a cross in a disc.
FIXED_LOOK = Look((0.1, 0.85, 0.45), "Circle2D")
MOVING_LOOK = Look((1.0, 0.35, 0.9), "Cross2D")
_OUTLIER_COLOUR = (0.55, 0.55, 0.55)
_MANY = 40  # labels of so many points hide the image
_WEIGHT = re.compile(r"\bweight=([0-9.eE+-]+)")


def markups_from_keypoints(
    keypoints: Keypoints,
    name: str,
    scene: Node,
    look: Look = FIXED_LOOK,
) -> Node:
    """A new point list in the coordinates of keypoints; see fill_markups."""
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetSelectedColor(*look.colour)
    display.SetGlyphTypeFromString(look.glyph)
    display.SetColor(*_OUTLIER_COLOUR)
    display.SetGlyphScale(2.5)
    display.SetTextScale(2.0)
    display.SetPointLabelsVisibility(len(keypoints) <= _MANY)
    fill_markups(node, keypoints)
    return node


def fill_markups(node: Node, keypoints: Keypoints) -> None:
    """Replace the points of a list.

    They are labelled "1" to "n" in order, the weight is the description ("weight=0.25", as in
    the files of retreg), and outliers are unselected.
    """
    with slicer.util.NodeModify(node):
        node.RemoveAllControlPoints()
        entries = zip(
            flipped(keypoints.points).tolist(),
            keypoints.weights.tolist(),
            keypoints.inliers.tolist(),
            strict=True,
        )
        for n, (position, weight, inlier) in enumerate(entries):
            node.AddControlPoint(position, str(n + 1))
            node.SetNthControlPointDescription(n, f"weight={weight!r}")
            node.SetNthControlPointSelected(n, inlier)


def keypoints_from_markups(node: Node) -> Keypoints:
    """The points of a list that are placed, in its own coordinates: parents are not applied.

    A point without a weight in its description has the weight 1.
    """
    return _keypoints(node, placed(node))


def keypoints_by_label(node: Node) -> dict[str, int]:
    """The index in the list of every placed point, by its label; the first one of equal labels."""
    found: dict[str, int] = {}
    for n in placed(node):
        found.setdefault(node.GetNthControlPointLabel(n), n)
    return found


def placed(node: Node) -> list[int]:
    """The indices of the points that have a position."""
    defined = node.PositionDefined
    count = node.GetNumberOfControlPoints()
    return [n for n in range(count) if node.GetNthControlPointPositionStatus(n) == defined]


def _keypoints(node: Node, indices: list[int]) -> Keypoints:
    positions = np.array([node.GetNthControlPointPosition(n) for n in indices]).reshape(-1, 3)
    weights = [_weight(node.GetNthControlPointDescription(n)) for n in indices]
    selected = [bool(node.GetNthControlPointSelected(n)) for n in indices]
    return Keypoints(flipped(positions), np.array(weights), np.array(selected, dtype=bool))


def _weight(description: str) -> float:
    found = _WEIGHT.search(description or "")
    try:
        return float(found[1]) if found else 1.0
    except ValueError:
        return 1.0
