"""Transforms of FSL, between the scaled voxels of two images; read by FSL's own fslpy.

They mean nothing without both images, whose sizes and voxels they count in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from retreg.errors import FileError
from retreg.files.doors import library
from retreg.files.nifti_header import NiftiHeader
from retreg.geometry import Grid
from retreg.transforms import Affine, DisplacementField

_CODES = range(2006, 2017)  # FNIRT's fields and coefficients and TOPUP's, by FSL's own codes
_DCT = 2008
_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_KIND = "a transform of FSL"


def is_fsl_field(header: NiftiHeader) -> bool:
    """Whether a NIfTI file is a warp or the coefficients of one, by FSL's intent codes."""
    return header.intent[0] in _CODES


def is_flirt(start: bytes) -> bool:
    """Whether a file that starts so holds four rows of four numbers."""
    rows = [line.split() for line in start.split(b"\n") if line.strip()]
    try:
        numbers = [float(word) for row in rows for word in row]
    except ValueError:
        return False
    return [len(row) for row in rows] == [4] * 4 and numbers[12:] == [0, 0, 0, 1]


def read_flirt(path: Path, fixed: Grid | None, moving: Grid | None) -> Affine:
    """The matrix of flirt -omat, which maps moving to fixed; fixed is its -ref, moving its -in."""
    reference, moved = _images(path.name, fixed, moving)
    from fsl.transform.flirt import fromFlirt, readFlirt

    fixed_from_moving = fromFlirt(readFlirt(path), moved, reference, "world", "world")
    return Affine(_LPS_FROM_RAS @ fixed_from_moving @ _LPS_FROM_RAS).inverse


def write_flirt(path: Path, transform: Affine, fixed: Grid, moving: Grid) -> None:
    """Write the matrix that flirt -applyxfm takes with these images."""
    reference, moved = _images(path.name, fixed, moving)
    from fsl.transform.flirt import toFlirt, writeFlirt

    fixed_from_moving = _LPS_FROM_RAS @ transform.inverse.moving_from_fixed @ _LPS_FROM_RAS
    writeFlirt(toFlirt(fixed_from_moving, moved, reference, "world", "world"), path)


def read_fsl_field(
    path: Path, header: NiftiHeader, fixed: Grid | None, moving: Grid | None
) -> DisplacementField:
    """A warp of fnirt or convertwarp, or the coefficients of fnirt, on the voxels of fixed.

    Raises FileError for discrete cosines, and where the images do not belong to the file.
    """
    if header.intent[0] == _DCT:
        raise FileError(
            f"{path.name} holds discrete cosine coefficients; convert them with fnirtfileutils "
            "--withaff to a field."
        )
    reference, moved = _images(path.name, fixed, moving)
    from fsl.transform.fnirt import readFnirt
    from fsl.transform.nonlinear import CoefficientField, coefficientFieldToDeformationField

    field = readFnirt(str(path), moved, reference)
    if isinstance(field, CoefficientField):
        field = coefficientFieldToDeformationField(field)
    size = field.shape[:3]
    grid = Grid(size, _LPS_FROM_RAS @ field.voxToWorldMat)
    ras = _LPS_FROM_RAS[:3, :3]
    moved_to = field.transform(grid.lattice() @ ras, "world", "world") @ ras
    vectors = (moved_to - grid.lattice()).T.reshape(3, *grid.shape)
    return DisplacementField(vectors, grid)


def _images(name: str, fixed: Grid | None, moving: Grid | None) -> tuple[Any, Any]:
    """Both grids as fslpy knows images, without any voxels. Raises FileError without them."""
    if fixed is None or moving is None:
        raise FileError(
            f"{name} is {_KIND}, which counts in the voxels of the two images it was made of; give "
            "them with --fixed and --moving."
        )
    with library("fslpy", name, _KIND):
        from fsl.data.image import Image
    both = []
    for grid in (fixed, moving):
        voxels = np.broadcast_to(np.uint8(0), grid.size)
        both.append(Image(voxels, xform=_LPS_FROM_RAS @ grid.world_from_index))
    return both[0], both[1]
