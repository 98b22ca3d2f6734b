"""Where the frames of DICOM images lie, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from retreg.errors import FileError

_INEXACT = 0.02  # of squared lengths and cosines: some headers have two decimals only


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice as its header describes it.

    position: (3,) LPS mm of the first pixel. axes: (3, 2) LPS mm from one pixel to the next along
    a row (i) and a column (j); both None when the header has no orientation. thickness_mm:
    distance to the next slice, None if the header does not say. value = slope * stored + intercept.
    """

    position: np.ndarray | None
    axes: np.ndarray | None
    spacing: tuple[float, float]
    thickness_mm: float | None
    slope: float
    intercept: float


def frames_of(header: Any) -> list[Frame]:
    """The frames of a single- or multi-frame data set, in stored order."""
    count = int(header.get("NumberOfFrames") or 1)
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        return _legacy_frames(header, count)
    shared = header.get("SharedFunctionalGroupsSequence")
    common = [*(_groups(shared[0]) if shared else ()), header]
    if len(per_frame) != count:
        raise FileError(
            f"The DICOM file declares {count} frames but describes {len(per_frame)} of them; "
            "export it again."
        )
    return [_frame([*_groups(group), *common]) for group in per_frame]


def _groups(item: Any) -> list[Any]:
    """The functional groups that describe geometry and values."""
    names = (
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "PixelValueTransformationSequence",
    )
    return [found[0] for name in names if (found := item.get(name))]


def _frame(sources: Sequence[Any]) -> Frame:
    """The frame described by the first source that has each attribute."""

    def numbers(name: str, count: int) -> np.ndarray | None:
        value = next((v for s in sources if (v := s.get(name)) is not None), None)
        if value is None or value == "":
            return None
        array = np.atleast_1d(np.asarray(value, dtype=np.float64))
        if array.shape != (count,) or not np.isfinite(array).all():
            raise FileError(f"The DICOM attribute {name} is not usable; export the image again.")
        return array

    position = numbers("ImagePositionPatient", 3)
    cosines = _checked_cosines(numbers("ImageOrientationPatient", 6))
    known = position is not None and cosines is not None
    spacing = numbers("PixelSpacing", 2)
    if spacing is not None and not spacing.any() and not known:
        spacing = None  # as some cameras say that they do not know it
    if spacing is None and (aspect := numbers("PixelAspectRatio", 2)) is not None:
        spacing = np.array([aspect[0] / aspect[1] if aspect.min() > 0 else 1.0, 1.0])
    down, right = (1.0, 1.0) if spacing is None else spacing
    if min(down, right) <= 0:
        raise FileError("The DICOM attribute PixelSpacing is not positive; export the image again.")
    thickness = [numbers(name, 1) for name in ("SpacingBetweenSlices", "SliceThickness")]
    usable = [abs(float(t[0])) for t in thickness if t is not None and t[0] != 0]
    slope, intercept = numbers("RescaleSlope", 1), numbers("RescaleIntercept", 1)
    return Frame(
        position if known else None,
        np.stack([cosines[:3] * right, cosines[3:] * down], axis=1)
        if known and cosines is not None
        else None,
        (right, down),
        usable[0] if usable else None,
        1.0 if slope is None or not slope[0] else float(slope[0]),  # GDCM's rule for 0, too
        0.0 if intercept is None else float(intercept[0]),
    )


def _checked_cosines(cosines: np.ndarray | None) -> np.ndarray | None:
    """The two directions (6,) if there are any: zeros stand for none, as in secondary captures.

    Raises FileError unless they are unit vectors at right angles (PS3.3 C.7.6.2.1.1).
    """
    if cosines is None or not cosines.any():
        return None
    row, column = cosines[:3], cosines[3:]
    errors = row @ row - 1, column @ column - 1, row @ column
    if max(map(abs, errors)) > _INEXACT:
        raise FileError(
            "The DICOM attribute ImageOrientationPatient does not hold two unit vectors at right "
            "angles; export the image again."
        )
    return cosines


def _legacy_frames(header: Any, count: int) -> list[Frame]:
    """Frames that share one header: a volume with a known step, or pictures without a place."""
    first = _frame([header])
    if count == 1:
        return [first]
    if first.axes is None or first.position is None or is_film(header):
        return [replace(first, position=None, axes=None)] * count
    offsets = header.get("GridFrameOffsetVector")  # of dose (PS3.3 C.8.8.3.2)
    if offsets is not None and len(np.atleast_1d(offsets)) == count:
        steps = [float(offset) - float(offsets[0]) for offset in offsets]
    elif first.thickness_mm is not None:
        steps = [n * first.thickness_mm for n in range(count)]
    else:
        raise FileError(
            f"The DICOM file holds {count} frames and does not say how far apart they lie; export "
            "them as single slices or as an enhanced object."
        )
    normal = np.cross(first.axes[:, 0], first.axes[:, 1])
    normal /= np.linalg.norm(normal)
    return [replace(first, position=first.position + step * normal) for step in steps]


def is_film(header: Any) -> bool:
    """Whether the frames follow each other in time."""
    film = ("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate")
    return any(header.get(name) for name in film)
