"""Transforms as Spatial Registration and Deformable Spatial Registration objects.

Directions are those of the standard: the matrix of an affine takes moving points to fixed ones,
the grid of a deformation takes fixed points to moving ones (PS3.3 C.20.2, C.20.3). A deformation
is written in the form that readers agree on: one grid along the axes of the world, without
matrices around it, larger than the fixed image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from retreg.composed_field import composed_field
from retreg.dicom.new_object import code, content, decimal, new_object
from retreg.dicom.references import image_references, list_references
from retreg.dicom.source import Source
from retreg.dicom.validate import matrix_type, validate
from retreg.files.dicom_registration import DEFORMABLE_REGISTRATION, SPATIAL_REGISTRATION
from retreg.geometry import Grid
from retreg.transforms import (
    Affine,
    Chain,
    DisplacementField,
    ThinPlateSpline,
    Transform,
    as_field,
)

_SERIES = 2
_TYPE_TOLERANCE = 1e-7
_FIELD_ERROR = 0.01  # mm, or voxels where these are smaller
_MOST_NODES = 20_000_000  # 240 MB
_PROBES = 4000
_PARALLEL = 1e-6
_AXES = "1 0 0 0 1 0"
_UNPLACED = "A picture: its points count from the centre of the first pixel."


@dataclass(frozen=True, eq=False)
class Pair:
    """Two images, where the fixed one lies, and the version of the software that relates them."""

    fixed: Source
    moving: Source
    grid: Grid
    version: str


def registration_object(pair: Pair, transform: Transform) -> Any:
    """The pydicom data set of a transform from fixed to moving points, LPS mm.

    Photographs, which lie in no frame of reference, get one of the object: their points are
    pixels from the centre of the first one, times their spacing (PS3.17 O.1). Raises FileError
    when the object would not be valid.
    """
    affine = affine_of(transform)
    if affine is None:
        data = _started(pair, DEFORMABLE_REGISTRATION)
        data.DeformableRegistrationSequence = [_deformation(pair, transform)]
    else:
        data = _started(pair, SPATIAL_REGISTRATION)
        fixed_from_moving = affine.inverse.moving_from_fixed
        data.RegistrationSequence = [
            _matrix_item(pair.fixed, np.eye(4)),
            _matrix_item(pair.moving, fixed_from_moving),
        ]
    list_references(data, (pair.fixed, pair.moving))
    validate(data)
    return data


def affine_of(transform: Transform) -> Affine | None:
    """The affine transform that equals it exactly, if there is one."""
    if isinstance(transform, ThinPlateSpline) and not transform.bends:
        return transform.affine_part
    if isinstance(transform, Chain):
        parts = [affine_of(part) for part in transform.transforms]
        matrix = np.eye(4)
        for part in parts:
            if part is None:
                return None
            matrix = part.moving_from_fixed @ matrix
        return Affine(matrix)
    return transform if isinstance(transform, Affine) else None


def axis_aligned(transform: Transform, grid: Grid) -> DisplacementField:
    """A field along the axes of the world that reaches beyond the whole of grid.

    Exact for a field, with affines around it, whose lattice is parallel to the axes; otherwise
    sampled, a hundredth of a millimetre or voxel off at most, as far as 20 million vectors allow.
    """
    exact = composed_field(transform, grid)
    turned = None if exact is None else _turned(exact)
    return _thick(_sampled(transform, grid) if turned is None else turned)


def _sampled(transform: Transform, grid: Grid) -> DisplacementField:
    """A coarse field if that is near enough, else one as fine as the voxels, else a finer one."""
    voxel = float(grid.spacing[: 2 if grid.is_plane else 3].min())
    allowed = _FIELD_ERROR * min(1.0, voxel)
    index = np.random.default_rng(0).uniform(-0.5, np.array(grid.size) - 0.5, (_PROBES, 3))
    places = grid.world(index * (1, 1, not grid.is_plane))
    expected = transform(places)
    for tolerance_mm, step in (
        (allowed, voxel), (allowed / 5, voxel), (0.0, voxel), (0.0, voxel / 2), (0.0, voxel / 4),
    ):  # fmt: skip
        field = as_field(transform, _box(grid, step), tolerance_mm)
        error = np.linalg.norm(field(places) - expected, axis=1).max()
        if error <= allowed or 8 * np.prod(np.array(field.grid.size)) > _MOST_NODES:
            break
    return field


def _started(pair: Pair, sop_class: str) -> Any:
    from pydicom.uid import generate_uid

    data = new_object(
        pair.fixed, sop_class, "REG", "RetReg registration", _SERIES, pair.version
    )
    data.FrameOfReferenceUID = pair.fixed.frame_of_reference or generate_uid(prefix=None)
    data.PositionReferenceIndicator = ""
    content(data, "REGISTRATION", "The moving image in the space of the fixed one")
    return data


def _matrix_item(source: Source, matrix: np.ndarray) -> Any:
    from pydicom.dataset import Dataset

    step, registration, item = Dataset(), Dataset(), Dataset()
    step.FrameOfReferenceTransformationMatrixType = matrix_type(matrix, _TYPE_TOLERANCE)
    step.FrameOfReferenceTransformationMatrix = [decimal(value) for value in matrix.ravel()]
    registration.MatrixSequence = [step]
    registration.RegistrationTypeCodeSequence = [_type_code()]
    if source.is_placed:
        item.FrameOfReferenceUID = source.frame_of_reference
    else:
        registration.FrameOfReferenceTransformationComment = _UNPLACED
    item.MatrixRegistrationSequence = [registration]
    item.ReferencedImageSequence = image_references(source)
    return item


def _deformation(pair: Pair, transform: Transform) -> Any:
    from pydicom.dataset import Dataset
    from pydicom.uid import generate_uid

    field = axis_aligned(transform, pair.grid)
    grid, item = Dataset(), Dataset()
    grid.ImageOrientationPatient = _AXES.split()
    grid.ImagePositionPatient = [decimal(v) for v in field.grid.world_from_index[:3, 3]]
    grid.GridDimensions = list(field.grid.size)
    grid.GridResolution = field.grid.spacing.tolist()
    grid.VectorGridData = field.vectors_mm.transpose(1, 2, 3, 0).astype("<f4").tobytes()
    item.SourceFrameOfReferenceUID = pair.moving.frame_of_reference or generate_uid(prefix=None)
    if not pair.moving.is_placed:
        item.FrameOfReferenceTransformationComment = _UNPLACED
    item.ReferencedImageSequence = image_references(pair.moving)
    item.RegistrationTypeCodeSequence = [_type_code()]
    item.DeformableRegistrationGridSequence = [grid]
    return item


def _type_code() -> Any:
    return code("125024", "DCM", "Image Content-based Alignment")


def _turned(field: DisplacementField) -> DisplacementField | None:
    """The same field with its axes in the order and direction of the world's, if it has them."""
    direction = field.grid.direction
    order = np.abs(direction).argmax(axis=1)  # the lattice axis along each axis of the world
    signs = direction[np.arange(3), order]
    if sorted(order) != [0, 1, 2] or np.abs(np.abs(signs) - 1).max() > _PARALLEL:
        return None
    vectors = field.vectors_mm.transpose(0, *(3 - order[::-1]))
    turn = np.zeros((4, 4))
    turn[order, np.arange(3)] = signs
    turn[3, 3] = 1.0
    last = np.array(field.grid.size)[order] - 1
    turn[order, 3] = np.where(signs < 0, last, 0)
    vectors = np.flip(vectors, tuple(3 - axis for axis in range(3) if signs[axis] < 0))
    i, j, k = (int(n) for n in last + 1)
    matrix = field.grid.world_from_index @ turn
    straight = np.diag([*np.diag(matrix)[:3], 1.0])
    straight[:3, 3] = matrix[:3, 3]
    return DisplacementField(vectors, Grid((i, j, k), straight))


def _box(grid: Grid, step_mm: float) -> Grid:
    """Cubes along the axes of the world around the whole of grid, larger where they are too many.

    Across a picture there is one.
    """
    corners = grid.corners()
    low, extent = corners.min(axis=0), np.ptp(corners, axis=0)
    flat = np.array([False, False, grid.is_plane and extent[2] <= 1.01 * grid.spacing[2]])
    while np.prod(np.ceil(extent / step_mm)[~flat] + 1) > _MOST_NODES:
        step_mm *= 1.25
    step = np.where(flat, extent, step_mm)
    matrix = np.diag([*step, 1.0])
    matrix[:3, 3] = low + step / 2
    i, j, k = (int(n) for n in np.ceil(extent / step - 1e-9))
    return Grid((i, j, k), matrix)


def _thick(field: DisplacementField) -> DisplacementField:
    """The same, with single planes doubled: between them there is something to interpolate."""
    vectors, matrix = field.vectors_mm, field.grid.world_from_index.copy()
    for axis, count in enumerate(field.grid.size):
        if count == 1:
            vectors = vectors.repeat(2, axis=3 - axis)
            matrix[:3, 3] -= matrix[:3, axis] / 2
    k, j, i = vectors.shape[1:]
    return DisplacementField(vectors, Grid((i, j, k), matrix))
