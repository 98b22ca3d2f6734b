"""Shared library of SlicerRetReg: geometry, transforms, closed-form fits, files, client."""

from __future__ import annotations

from retreg.errors import RetRegError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.resample import resample
from retreg.transforms import Affine, Chain, DisplacementField, ThinPlateSpline

__all__ = [
    "Affine",
    "Chain",
    "DisplacementField",
    "Grid",
    "Image",
    "Keypoints",
    "RegistrationResult",
    "RetRegError",
    "ThinPlateSpline",
    "resample",
]
