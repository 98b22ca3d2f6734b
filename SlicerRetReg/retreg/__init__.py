"""Shared library of SlicerRetReg: geometry, transforms, closed-form fits, files, client."""

from __future__ import annotations

from retreg.client import Client
from retreg.errors import RetRegError
from retreg.files import (
    read_image,
    read_markups,
    read_transform,
    write_image,
    write_markups,
    write_transform,
)
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.resample import resample
from retreg.transforms import Affine, Chain, DisplacementField, ThinPlateSpline

__all__ = [
    "Affine",
    "Chain",
    "Client",
    "DisplacementField",
    "Grid",
    "Image",
    "Keypoints",
    "RegistrationResult",
    "RetRegError",
    "ThinPlateSpline",
    "read_image",
    "read_markups",
    "read_transform",
    "resample",
    "write_image",
    "write_markups",
    "write_transform",
]
