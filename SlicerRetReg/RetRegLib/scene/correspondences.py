"""The point pairs as a model: a line for each, from the fixed point to the moving one.

A point list has one colour for all of its points, so the weights are told by this model: it is
coloured by them, and carries the residuals as another array to colour by.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import vtk
from vtk.util import numpy_support

from retreg.transforms import Transform
from RetRegLib.scene.nodes import Node, vtk_points

_COLOURS = "vtkMRMLColorTableNodeRainbow"


def correspondences_node(name: str, scene: Node) -> Node:
    """A new, empty model that shows pairs once fill_correspondences gave it some."""
    node = scene.AddNewNodeByClass("vtkMRMLModelNode", name)
    node.SetAndObserveMesh(vtk.vtkPolyData())
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetActiveScalarName("weight")
    display.SetScalarVisibility(True)
    display.SetScalarRangeFlag(display.UseManualScalarRange)
    display.SetScalarRange(0.0, 1.0)
    display.SetAndObserveColorNodeID(_COLOURS)
    display.SetLineWidth(2)
    display.SetPointSize(6)
    display.SetSliceDisplayMode(display.SliceDisplayProjection)
    display.SetVisibility2D(False)  # where so many lines hide the images
    return node


def fill_correspondences(
    node: Node,
    fixed_points: np.ndarray,
    moving_points: np.ndarray,
    weights: np.ndarray,
    residuals_mm: np.ndarray,
) -> None:
    """Set the pairs: points (n, 3) LPS mm, weights (n,), residuals_mm (n,)."""
    count = len(fixed_points)
    mesh = vtk.vtkPolyData()
    mesh.SetPoints(vtk_points(np.vstack([fixed_points, moving_points])))
    first = np.arange(count)
    mesh.SetVerts(_cells(first[:, None]))
    mesh.SetLines(_cells(np.stack([first, first + count], axis=1)))
    for title, values in (("weight", weights), ("residual_mm", residuals_mm)):
        array = numpy_support.numpy_to_vtk(np.tile(values, 2).astype(np.float64), deep=True)
        array.SetName(title)
        mesh.GetPointData().AddArray(array)
    mesh.GetPointData().SetActiveScalars("weight")
    node.SetAndObserveMesh(mesh)
    display = node.GetDisplayNode()
    if display is not None and count:
        display.SetScalarRange(0.0, max(float(weights.max()), 1e-12))


def residuals(
    transform: Transform, fixed_points: np.ndarray, moving_points: np.ndarray
) -> np.ndarray:
    """(n,) mm between where the transform puts the fixed points and their moving partners."""
    return np.linalg.norm(transform(fixed_points) - moving_points, axis=1)


def _cells(members: np.ndarray) -> Any:
    """Cells of the points whose indices stand in the rows of members (cells, points)."""
    count, size = members.shape
    arrays = [np.arange(count + 1) * size, members.ravel()]
    cells = vtk.vtkCellArray()
    cells.SetData(*(numpy_support.numpy_to_vtkIdTypeArray(a, deep=True) for a in arrays))
    return cells
