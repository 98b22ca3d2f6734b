"""Fields in NIfTI files that are not the displacements of ITK, told by their intent."""

from __future__ import annotations

import numpy as np

from retreg.errors import FileError
from retreg.files.nifti_header import NiftiHeader
from retreg.transforms import DisplacementField

_SPM_MAPPING = "Mapping"
_NIFTYREG = "NREG_TRANS"


def is_mapping(name: str, header: NiftiHeader) -> bool:
    """Whether the file is a deformation of SPM, which holds positions and not displacements.

    Raises FileError for the fields of NiftyReg, which hold neither in the way of ITK.
    """
    intent_name = header.intent[1]
    if intent_name == _NIFTYREG:
        raise FileError(
            f"{name} is a field of NiftyReg, which does not hold displacements as ITK does; "
            "convert it to an ITK displacement field, with reg_transform for instance."
        )
    return intent_name == _SPM_MAPPING


def displacements_of_mapping(mapping: DisplacementField) -> DisplacementField:
    """Displacements of a deformation of SPM: at each voxel it holds a position, RAS mm.

    mapping: those positions, as if they were displacements. Source: the headers of y_*.nii that
    SPM12 writes, spm_deformations.m.
    """
    grid = mapping.grid
    positions = mapping.vectors_mm * np.array([-1.0, -1.0, 1.0])[:, None, None, None]
    own = np.moveaxis(grid.lattice().reshape(*grid.shape, 3), -1, 0)
    return DisplacementField(positions - own, grid)
