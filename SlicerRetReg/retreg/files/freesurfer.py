"""FreeSurfer's volumes, .mgh and .mgz, read by nibabel."""

from __future__ import annotations

from io import IOBase
from pathlib import Path
from typing import cast

import numpy as np

from retreg.errors import FileError
from retreg.files.formats import Format
from retreg.files.headers import checked_header, unpacked
from retreg.geometry import Grid
from retreg.image import Image

_ENDINGS = (".mgh", ".mgz", ".mgh.gz")


def read_mgh(path: Path) -> Image:
    """The volume, LPS mm. Raises FileError, for several frames too."""
    promise = checked_header(path, Format.MGH)
    if not path.name.lower().endswith(_ENDINGS):
        raise FileError(
            f"{path.name} is a FreeSurfer volume by its content; rename it to end in .mgz or .mgh."
        )
    if promise.sizes[3] != 1:
        raise FileError(f"{path.name} holds {promise.sizes[3]} frames; save a single one.")
    try:
        from nibabel.freesurfer.mghformat import MGHImage
    except ImportError:
        raise FileError(
            f"{path.name} is a FreeSurfer volume, and nibabel, which reads it, is not installed; "
            "install it, or convert the volume with mri_convert to .nii.gz."
        ) from None
    with unpacked(path) as file:
        volume = MGHImage.from_stream(cast(IOBase, file))
        voxels = np.asanyarray(volume.dataobj).reshape(promise.sizes[:3])
    voxels = voxels.astype(voxels.dtype.newbyteorder("="))
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    i, j, k = promise.sizes[:3]
    return Image(np.ascontiguousarray(voxels.T)[None], Grid((i, j, k), matrix))
