"""Transforms as nodes and back.

A transform is always set as the node's transform *from parent*: that maps fixed to moving points,
so the moving image under the node appears on the fixed one, and what Slicer saves is an ordinary
ITK transform.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from retreg.composed_field import composed_field
from retreg.correction_fields import correction_fields
from retreg.errors import InputError
from retreg.geometry import Grid
from retreg.local_correction import LocalCorrection
from retreg.splines.thin_plate import CHUNK, distance_factors
from retreg.transforms import Affine, Chain, DisplacementField, ThinPlateSpline, Transform, as_field
from RetRegLib.scene.nodes import (
    Node,
    array_of,
    flipped,
    flipped_map,
    flipped_placement,
    points_of,
    vtk_matrix,
    vtk_points,
)

MAX_SPLINE_POINTS = 128  # VTK solves for the coefficients in seconds beyond that
QUICK_SPLINE_POINTS = 64  # up to which it solves within a few milliseconds
_INVERSE_MM = 1e-5  # tolerance of the points that Slicer moves through an inverse spline
_GRID_INVERSE_MM = 1e-3  # and through a grid, where its search does not get nearer at the nodes
_SKETCH_INVERSE_MM = 0.05
_PADDING = 0.1  # of the image on every side of a sampled field, since Slicer stops it at the edge
SKETCH_PLACES = 8_000
FINE_PLACES = 100_000
CORRECTION_MM, SKETCHED_CORRECTION_MM = 0.01, 0.1  # to which the fields of a correction equal it
_FLAT = 1e-7


def transform_node(transform: Transform, name: str, scene: Node, grid: Grid | None = None) -> Node:
    """A new transform node: linear, native thin-plate spline, or grid.

    Affine transforms become a vtkMRMLLinearTransformNode; thin-plate splines of at most
    MAX_SPLINE_POINTS points a vtkMRMLTransformNode that holds the spline itself; everything else
    a vtkMRMLGridTransformNode: fields, with affines around them, as they are, others sampled on
    grid (that of the fixed image; splines know where their points are). Raises InputError without
    a grid where one is needed.
    """
    carrier = carrier_of(transform, grid)
    if isinstance(carrier, vtk.vtkLinearTransform):
        kind = "vtkMRMLLinearTransformNode"
    elif isinstance(carrier, vtk.vtkThinPlateSplineTransform):
        kind = "vtkMRMLTransformNode"
    else:
        kind = "vtkMRMLGridTransformNode"
    node = scene.AddNewNodeByClass(kind, name)
    node.SetAndObserveTransformFromParent(carrier)
    return node


def update_transform_node(node: Node, transform: Transform, grid: Grid | None = None) -> None:
    """Set another transform, of any kind, in place: what lies under the node follows.

    Every class of transform node can hold and save every kind, so the node stays the one that
    people have chosen and refer to.
    """
    node.SetAndObserveTransformFromParent(carrier_of(transform, grid))


def sketch_transform_node(
    node: Node, transform: Transform, grid: Grid, places: int = SKETCH_PLACES
) -> None:
    """As update_transform_node, but in a few milliseconds and quick to draw, also for many points.

    Splines are sampled at about so many places around the image on grid, in single precision.
    """
    if not isinstance(transform, ThinPlateSpline) or transform.kernel != "r":
        update_transform_node(node, transform, grid)
        return
    whole = _padded(grid)
    used = np.array(whole.size) > 1
    share = np.prod(np.array(whole.size, dtype=np.float64)[used]) / places
    step = int(np.ceil(share ** (1 / used.sum()))) if share > 1 else 1
    lattice = whole.coarsened(step)
    nodes = lattice.lattice()
    vectors = (_in_single(transform, nodes) - nodes).T.reshape(3, *lattice.shape)
    carrier = _grid_carrier(DisplacementField(vectors, lattice), _SKETCH_INVERSE_MM)
    node.SetAndObserveTransformFromParent(carrier)


def correct_transform_node(
    node: Node, correction: LocalCorrection, measured: Any, grid: Grid, tolerance_mm: float
) -> None:
    """Set what a node held, the VTK transform measured, after a local correction.

    The correction comes as small fields, so that measured stays as it is, whatever its kind, and
    beyond the correction nothing changes by a hair.
    """
    both = vtk.vtkGeneralTransform()
    both.PostMultiply()
    for field in correction_fields(correction, grid, tolerance_mm):
        both.Concatenate(_grid_carrier(field))
    both.Concatenate(measured)
    node.SetAndObserveTransformFromParent(both)


def _in_single(transform: ThinPlateSpline, points: np.ndarray) -> np.ndarray:
    """The spline at points (n, 3), with the kernel in single precision."""
    spline = transform.spline
    out = transform.affine_part(points)
    left, right = (part.astype(np.float32) for part in distance_factors(points, spline.centres))
    coefficients = spline.coefficients.astype(np.float32)
    rows = max(16, CHUNK // len(spline.centres))
    for start in range(0, len(points), rows):
        squared = left[start : start + rows] @ right
        np.sqrt(np.maximum(squared, 0, out=squared), out=squared)
        out[start : start + rows] -= squared @ coefficients
    return out


def transform_of(node: Node) -> Transform:
    """The transform from parent of a node: fixed to moving points in LPS mm.

    Raises InputError for kinds that RetReg does not make, such as inverse warps and B-splines.
    """
    return _from_vtk(node.GetTransformFromParent(), node.GetName())


def carrier_of(transform: Transform, grid: Grid | None) -> Any:
    """The VTK transform, in RAS, that a node is to hold; grid: see transform_node."""
    if isinstance(transform, Affine):
        linear = vtk.vtkTransform()
        linear.SetMatrix(vtk_matrix(flipped_map(transform.moving_from_fixed)))
        return linear
    if isinstance(transform, ThinPlateSpline) and is_native(transform):
        return _spline_carrier(transform)
    if isinstance(transform, DisplacementField):
        return _grid_carrier(transform)
    around = _padded(grid or _domain(transform))
    return _grid_carrier(composed_field(transform, around) or as_field(transform, around))


def keep_linear(carrier: Any) -> None:
    """Let grids be interpolated as they were before they were saved: reading forgets that."""
    if isinstance(carrier, vtk.vtkGeneralTransform):
        for n in range(carrier.GetNumberOfConcatenatedTransforms()):
            keep_linear(carrier.GetConcatenatedTransform(n))
    elif isinstance(carrier, slicer.vtkOrientedGridTransform):
        carrier.SetInterpolationModeToLinear()


def is_native(transform: Transform, at_most: int = MAX_SPLINE_POINTS) -> bool:
    """Whether a node holds this transform exactly, with at most so many points of a spline."""
    if not isinstance(transform, ThinPlateSpline):
        return isinstance(transform, (Affine, DisplacementField))
    return transform.kernel == "r" and len(transform.spline.centres) <= at_most


def _spline_carrier(transform: ThinPlateSpline) -> Any:
    """The spline that goes exactly through the fitted points, which is the smoothing one.

    An interpolating spline through values of another spline with the same centres equals it.
    That also holds with one more landmark, beside the plane in which all points of a picture lie:
    it tells VTK what happens across the plane, where it would else flatten space.
    """
    source = np.unique(transform.spline.centres, axis=0)
    _, spread, axes = np.linalg.svd(source - source.mean(axis=0), full_matrices=False)
    if len(spread) < 3 or spread[2] <= _FLAT * spread[0]:
        source = np.vstack([source, source.mean(axis=0) + spread[0] / len(source) * axes[2]])
    carrier = vtk.vtkThinPlateSplineTransform()
    carrier.SetBasisToR()  # the only one that can be saved
    carrier.SetSourceLandmarks(vtk_points(source))
    carrier.SetTargetLandmarks(vtk_points(transform(source)))
    carrier.SetInverseTolerance(_INVERSE_MM)
    return carrier


def _grid_carrier(field: DisplacementField, inverse_mm: float = _GRID_INVERSE_MM) -> Any:
    placement = flipped_placement(field.grid.world_from_index)
    data = vtk.vtkImageData()
    data.SetDimensions(*field.grid.size)
    data.SetSpacing(*field.grid.spacing)
    data.SetOrigin(*placement[:3, 3])
    data.AllocateScalars(vtk.VTK_DOUBLE, 3)
    vectors = numpy_support.vtk_to_numpy(data.GetPointData().GetScalars())
    vectors[:] = flipped(field.vectors_mm.reshape(3, -1).T)
    direction = np.eye(4)
    direction[:3, :3] = placement[:3, :3] / field.grid.spacing
    carrier = slicer.vtkOrientedGridTransform()
    carrier.SetGridDirectionMatrix(vtk_matrix(direction))
    carrier.SetDisplacementGridData(data)
    carrier.SetInterpolationModeToLinear()
    carrier.SetInverseTolerance(inverse_mm)
    return carrier


def _padded(grid: Grid) -> Grid:
    """The grid with some voxels more on every side, except across a single slice."""
    size = np.array(grid.size)
    margin = np.where(size > 1, np.ceil(_PADDING * size), 0).astype(int)
    i, j, k = (int(n) for n in size + 2 * margin)
    shift = np.eye(4)
    shift[:3, 3] = -margin
    return Grid((i, j, k), grid.world_from_index @ shift)


def _domain(transform: Transform) -> Grid:
    """Where a transform is known to matter, when nobody says."""
    if isinstance(transform, DisplacementField):
        return transform.grid
    if isinstance(transform, ThinPlateSpline):
        low, extent = transform.spline.centres.min(axis=0), np.ptp(transform.spline.centres, axis=0)
        step = extent.max() / 128
        size = np.where(extent > _FLAT * extent.max(), np.ceil(extent / step) + 1, 1).astype(int)
        placement = np.diag([step, step, step, 1.0])
        placement[:3, 3] = low
        i, j, k = (int(n) for n in size)
        return Grid((i, j, k), placement)
    if isinstance(transform, Chain):
        for part in transform.transforms:
            if not isinstance(part, Affine):
                return _domain(part)
    raise InputError("This transform can only be sampled with the grid of the fixed image.")


def _from_vtk(carrier: Any, name: str) -> Transform:
    if isinstance(carrier, vtk.vtkLinearTransform):
        return Affine(flipped_map(array_of(carrier.GetMatrix())))
    if isinstance(carrier, vtk.vtkGeneralTransform):
        parts = range(carrier.GetNumberOfConcatenatedTransforms())
        found = [_from_vtk(carrier.GetConcatenatedTransform(n), name) for n in parts]
        return found[0] if len(found) == 1 else Chain(tuple(found))
    forward = isinstance(carrier, vtk.vtkWarpTransform) and not carrier.GetInverseFlag()
    if forward and isinstance(carrier, slicer.vtkOrientedGridTransform):
        return _field_of(carrier)
    if forward and isinstance(carrier, vtk.vtkThinPlateSplineTransform) and _is_r(carrier):
        source, target = carrier.GetSourceLandmarks(), carrier.GetTargetLandmarks()
        return ThinPlateSpline(points_of(source), points_of(target))
    raise InputError(
        f"The transform {name} is of a kind that RetReg does not read; convert it to a "
        "displacement field."
    )


def _is_r(carrier: Any) -> bool:
    return bool(carrier.GetBasis() == vtk.VTK_RBF_R)


def _field_of(carrier: Any) -> DisplacementField:
    data, direction = carrier.GetDisplacementGrid(), carrier.GetGridDirectionMatrix()
    placement = array_of(direction) if direction is not None else np.eye(4)
    placement[:3, :3] = placement[:3, :3] * np.array(data.GetSpacing())
    placement[:3, 3] = data.GetOrigin()
    grid = Grid(data.GetDimensions(), flipped_placement(placement))
    vectors = numpy_support.vtk_to_numpy(data.GetPointData().GetScalars()).astype(np.float64)
    scaled = vectors * carrier.GetDisplacementScale() + carrier.GetDisplacementShift()
    return DisplacementField(flipped(scaled).T.reshape(3, *grid.shape), grid)
