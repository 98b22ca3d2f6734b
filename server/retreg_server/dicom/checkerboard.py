"""Fixed and registered picture in alternating fields, as a capture for the eye."""

from __future__ import annotations

from typing import Any

import numpy as np

from retreg.dicom.new_object import MAKER, SERIES_NUMBERS, give_to_study
from retreg.dicom.objects import Registered
from retreg.image import Image
from retreg.resample import resample

FIELDS = 8  # along the longer side
_SERIES = 5


def checkerboard_object(registered: Registered) -> Any:
    """The pydicom data set of a Secondary Capture of two photographs, in 8-bit colour."""
    from highdicom.sc import SCImage
    from pydicom.uid import generate_uid

    fixed = registered.sources[0].header
    warped = resample(registered.moving, registered.result.transform, registered.fixed.grid)
    data = SCImage(
        pixel_array=alternating(_colours(registered.fixed), _colours(warped)),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=str(fixed.StudyInstanceUID),
        series_instance_uid=generate_uid(prefix=None),
        series_number=SERIES_NUMBERS + _SERIES + int(fixed.get("SeriesNumber") or 0),
        sop_instance_uid=generate_uid(prefix=None),
        instance_number=1,
        manufacturer=MAKER,
        patient_orientation=("L", "F"),
        series_description=f"RetReg checkerboard ({registered.words.how})",
    )
    give_to_study(data, registered.sources[0])
    return data


def alternating(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(j, i, 3): fields of one and the other picture in turn; the corner is of the first."""
    rows, columns = first.shape[:2]
    size = max(1, -(-max(rows, columns) // FIELDS))
    j, i = np.indices((rows, columns)) // size
    return np.where(((i + j) % 2 == 0)[..., None], first, second)


def _colours(image: Image) -> np.ndarray:
    """(j, i, 3) uint8; what has more bits is scaled to its own range."""
    pixels = np.moveaxis(image.array[:, 0], 0, -1)
    if pixels.dtype != np.uint8:
        low, high = float(pixels.min()), float(pixels.max())
        pixels = np.rint((pixels - low) * (255 / ((high - low) or 1))).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
