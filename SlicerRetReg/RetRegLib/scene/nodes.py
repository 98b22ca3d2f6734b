"""Where Slicer's world meets ours: MRML nodes are in RAS mm, everything else in LPS mm.

The two differ in the signs of x and y. This is the only module that knows; all others speak LPS
and ask it for points, matrices and vectors in the other frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import vtk
from vtk.util import numpy_support

from retreg.errors import InputError

Node = Any
"""A node of the MRML scene; its class exists in Slicer only."""

_SIGNS = np.array([-1.0, -1.0, 1.0])
_FLIP = np.diag([*_SIGNS, 1.0])


def flipped(points: np.ndarray) -> np.ndarray:
    """Points or vectors (..., 3) from LPS to RAS or back."""
    return np.asarray(points, dtype=np.float64) * _SIGNS


def flipped_map(matrix: np.ndarray) -> np.ndarray:
    """A (4, 4) map from world to world, from LPS to RAS or back."""
    return _FLIP @ matrix @ _FLIP


def flipped_placement(matrix: np.ndarray) -> np.ndarray:
    """A (4, 4) map from index to world, from LPS to RAS or back."""
    return _FLIP @ matrix


def vtk_matrix(matrix: np.ndarray) -> Any:
    """A vtkMatrix4x4 with the numbers of a (4, 4) array."""
    out = vtk.vtkMatrix4x4()
    out.DeepCopy(np.asarray(matrix, dtype=np.float64).ravel().tolist())
    return out


def array_of(matrix: Any) -> np.ndarray:
    """The numbers (4, 4) of a vtkMatrix4x4."""
    return np.array([[matrix.GetElement(row, col) for col in range(4)] for row in range(4)])


def vtk_points(points: np.ndarray) -> Any:
    """A vtkPoints in RAS, in double precision, of points (n, 3) LPS mm."""
    out = vtk.vtkPoints()
    out.SetDataTypeToDouble()
    out.SetData(numpy_support.numpy_to_vtk(np.ascontiguousarray(flipped(points)), deep=True))
    return out


def points_of(points: Any) -> np.ndarray:
    """The points (n, 3) LPS mm of a vtkPoints in RAS."""
    if points is None or points.GetNumberOfPoints() == 0:
        return np.zeros((0, 3))
    return flipped(numpy_support.vtk_to_numpy(points.GetData()))


def parents(node: Node, below: Node | None = None) -> list[Node]:
    """The transform nodes above a node, the nearest one first, up to but without below."""
    found: list[Node] = []
    parent = node.GetParentTransformNode()
    while parent is not None and parent is not below:
        found.append(parent)
        parent = parent.GetParentTransformNode()
    return found


def world_from_node(node: Node, below: Node | None = None) -> np.ndarray:
    """(4, 4) LPS mm: from the coordinates of a node to the world, through its parent transforms.

    With below, only the parents under that transform node count. Raises InputError when one of
    them is not linear.
    """
    world = np.eye(4)
    for parent in parents(node, below):
        if not parent.IsLinear():
            raise InputError(
                f"{node.GetName()} lies under the transform {parent.GetName()}, which is not "
                "linear; harden it or take the image out of it first."
            )
        to_parent = vtk.vtkMatrix4x4()
        parent.GetMatrixTransformToParent(to_parent)
        world = array_of(to_parent) @ world
    return flipped_map(world)
