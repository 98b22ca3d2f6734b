"""FreeSurfer's linear transforms, .lta; nitransforms knows the format."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from retreg.files.doors import library
from retreg.geometry import Grid
from retreg.transforms import Affine

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_START = re.compile(rb"\A(?:\s*#[^\n]*\n)*\s*type\s*=\s*\d+")
_KIND = "a transform of FreeSurfer"


def is_lta(start: bytes) -> bool:
    """Whether a file that starts so is one of FreeSurfer's transforms."""
    return bool(_START.match(start))


def read_lta(path: Path) -> Affine:
    """The transform; FreeSurfer stores the one from its source, moving, to its destination."""
    with library("nitransforms", path.name, _KIND):
        from nitransforms.io.lta import FSLinearTransform
    moving_from_fixed = FSLinearTransform.from_string(path.read_text(encoding="utf-8")).to_ras()
    return Affine(_LPS_FROM_RAS @ moving_from_fixed @ _LPS_FROM_RAS)


def write_lta(path: Path, transform: Affine, fixed: Grid, moving: Grid) -> None:
    """Write a file of the kind RAS to RAS, with the geometry of both images."""
    with library("nitransforms", path.name, _KIND):
        from nitransforms.io.lta import FSLinearTransform
    ras = _LPS_FROM_RAS @ transform.moving_from_fixed @ _LPS_FROM_RAS
    # nitransforms writes its reference as the source, though it inverts the matrix as if it were
    # the destination, which it takes it for when it reads; hence the exchange.
    entry = FSLinearTransform.from_ras(ras, moving=_image(fixed), reference=_image(moving))
    path.write_text(entry.to_string(), encoding="utf-8")


def _image(grid: Grid) -> Any:
    from nibabel.nifti1 import Nifti1Image

    voxels = np.broadcast_to(np.uint8(0), grid.size)
    return Nifti1Image(voxels, _LPS_FROM_RAS @ grid.world_from_index)  # type: ignore[no-untyped-call]
