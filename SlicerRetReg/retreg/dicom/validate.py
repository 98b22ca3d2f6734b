"""What may be wrong with a registration object although its attributes are all in order."""

from __future__ import annotations

from typing import Any

import numpy as np

from retreg.errors import FileError
from retreg.files.dicom_registration import (
    DEFORMABLE_REGISTRATION,
    SPATIAL_REGISTRATION,
    field_of,
    images_of,
    matrix_of,
    referenced_instances,
)

_NAME = "The registration object"
_SAME = 1e-4  # relative; far above the rounding of decimal strings


def validate(data: Any) -> None:
    """Raise FileError for what a checker of attributes does not see.

    A matrix that is not of the type that it claims or not affine; no images that stay where they
    are; a grid of another length than declared; images that are not listed by series.
    """
    kind = str(data.get("SOPClassUID", ""))
    if kind == SPATIAL_REGISTRATION:
        items = list(data.RegistrationSequence)
        for item in items:
            _refuse_false_type(item.MatrixRegistrationSequence[0])
        _refuse_no_identity(data, items)
    elif kind == DEFORMABLE_REGISTRATION:
        items = list(data.DeformableRegistrationSequence)
        for item in items:
            for grid in item.get("DeformableRegistrationGridSequence") or ():
                field_of(grid, _NAME)
    else:
        raise FileError("The object is no registration; one of the two kinds was expected.")
    named = frozenset().union(*(images_of(item).instances for item in items))
    unlisted = named - referenced_instances(data)
    if unlisted:
        raise FileError(
            f"{_NAME} refers to {len(unlisted)} images whose series it does not list; archives "
            "could not find them."
        )


def matrix_type(matrix: np.ndarray, tolerance: float) -> str:
    """RIGID, RIGID_SCALE or AFFINE, whatever is the least for a (4, 4) matrix (PS3.3 C.20.2.1.2).

    tolerance: of squared lengths, relative. A mirror is AFFINE.
    """
    linear = matrix[:3, :3]
    product = linear.T @ linear
    scales = np.diag(product)
    off = np.abs(product - np.diag(scales)).max()
    if off > tolerance * scales.max() or np.linalg.det(linear) <= 0:
        return "AFFINE"
    return "RIGID" if np.abs(scales - 1).max() <= tolerance else "RIGID_SCALE"


def _refuse_false_type(registration: Any) -> None:
    for step in registration.MatrixSequence:
        claimed = str(step.get("FrameOfReferenceTransformationMatrixType", ""))
        matrix = np.array(step.FrameOfReferenceTransformationMatrix, dtype=np.float64)
        least = matrix_type(matrix.reshape(4, 4), _SAME) if matrix.size == 16 else ""
        kinds = ("RIGID", "RIGID_SCALE", "AFFINE")
        if least and claimed in kinds and kinds.index(claimed) < kinds.index(least):
            raise FileError(f"{_NAME} calls a matrix {claimed} that is {least}.")
    matrix_of(registration, _NAME)


def _refuse_no_identity(data: Any, items: list[Any]) -> None:
    own = str(data.get("FrameOfReferenceUID", ""))
    for item in items:
        frame = images_of(item).frame_of_reference
        stays = np.abs(matrix_of(item.MatrixRegistrationSequence[0], _NAME) - np.eye(4)).max()
        if stays < _SAME and frame in ("", own):
            return
    raise FileError(f"{_NAME} names no images that stay where they are, which others go by.")
