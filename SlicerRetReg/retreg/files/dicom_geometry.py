"""Where the frames of DICOM images lie, and the grid that they make together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retreg.errors import FileError
from retreg.geometry import Grid

_SAME_DIRECTION = 1e-3  # of unit vectors and, relatively, of pixel spacings
_UNEVEN = 0.05  # of the distance of slices; positions are often rounded to 0.1 mm


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice as its header describes it.

    position: (3,) LPS mm of the first pixel. axes: (3, 2) LPS mm from one pixel to the next along
    a row (i) and a column (j); both None when the header has no orientation. thickness_mm:
    distance to the next slice, as far as the header says. value = slope * stored + intercept.
    """

    position: np.ndarray | None
    axes: np.ndarray | None
    spacing: tuple[float, float]
    thickness_mm: float
    slope: float
    intercept: float


def frames_of(header: Any) -> list[Frame]:
    """The frames of a single- or multi-frame data set, in stored order."""
    count = int(header.get("NumberOfFrames") or 1)
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        return _legacy_frames(header, count)
    shared = header.get("SharedFunctionalGroupsSequence")
    common = list(shared[:1]) if shared else []
    if len(per_frame) != count:
        raise FileError(
            f"The DICOM file declares {count} frames but describes {len(per_frame)} of them; "
            "export it again."
        )
    return [_frame([*_groups([group, *common]), header]) for group in per_frame]


def stacked(frames: Sequence[Frame], columns: int, rows: int) -> tuple[list[int], Grid]:
    """The order of the frames along their normal, and the grid they form.

    Raises FileError when the frames do not lie on one regular grid.
    """
    if frames[0].axes is None:
        return _without_orientation(frames, columns, rows)
    axes, positions = _parallel(frames)
    normal = np.cross(axes[:, 0], axes[:, 1])
    normal /= np.linalg.norm(normal)
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    step = normal * frames[0].thickness_mm
    if len(frames) > 1:
        _refuse_gaps(heights[order])
        step = (positions[order[-1]] - positions[order[0]]) / (len(frames) - 1)
        _refuse_bent(positions[order], step)
    matrix = np.eye(4)
    matrix[:3, :2], matrix[:3, 2], matrix[:3, 3] = axes, step, positions[order[0]]
    return order.tolist(), Grid((columns, rows, len(frames)), matrix)


def _groups(items: Sequence[Any]) -> list[Any]:
    """The functional groups that describe geometry and values, those of the frame first."""
    names = (
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "PixelValueTransformationSequence",
    )
    return [item[name][0] for item in items for name in names if item.get(name)]


def _frame(sources: Sequence[Any]) -> Frame:
    """The frame described by the first source that has each attribute."""

    def numbers(name: str, count: int) -> np.ndarray | None:
        value = next((s.get(name) for s in sources if s.get(name) is not None), None)
        if value is None or value == "":
            return None
        array = np.atleast_1d(np.asarray(value, dtype=np.float64))
        if array.shape != (count,) or not np.isfinite(array).all():
            raise FileError(f"The DICOM attribute {name} is not usable; export the image again.")
        return array

    position = numbers("ImagePositionPatient", 3)
    cosines = numbers("ImageOrientationPatient", 6)
    spacing = numbers("PixelSpacing", 2)
    down, right = (1.0, 1.0) if spacing is None else spacing
    if min(down, right) <= 0:
        raise FileError("The DICOM attribute PixelSpacing is not positive; export the image again.")
    thickness = [numbers(name, 1) for name in ("SpacingBetweenSlices", "SliceThickness")]
    usable = [abs(float(t[0])) for t in thickness if t is not None and t[0] != 0]
    slope, intercept = numbers("RescaleSlope", 1), numbers("RescaleIntercept", 1)
    known = position is not None and cosines is not None
    return Frame(
        position if known else None,
        np.stack([cosines[:3] * right, cosines[3:] * down], axis=1)
        if known and cosines is not None
        else None,
        (right, down),
        usable[0] if usable else 1.0,
        1.0 if slope is None else float(slope[0]),
        0.0 if intercept is None else float(intercept[0]),
    )


def _legacy_frames(header: Any, count: int) -> list[Frame]:
    """Frames that share one header: a volume with a constant step, unless it is a film."""
    first = _frame([header])
    if count == 1:
        return [first]
    film = ("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate")
    if any(header.get(name) for name in film):
        raise FileError(
            f"The DICOM file is a film of {count} frames; one volume or one picture was expected, "
            "so export a single frame."
        )
    if first.axes is None or first.position is None:
        return [first] * count
    normal = np.cross(first.axes[:, 0], first.axes[:, 1])
    step = normal / np.linalg.norm(normal) * first.thickness_mm
    return [
        Frame(first.position + n * step, first.axes, first.spacing, first.thickness_mm,
              first.slope, first.intercept)
        for n in range(count)
    ]  # fmt: skip


def _without_orientation(
    frames: Sequence[Frame], columns: int, rows: int
) -> tuple[list[int], Grid]:
    """A picture: pixel (x, y) is the point (x, y, 0), times the pixel spacing if there is one."""
    depth = frames[0].thickness_mm if len(frames) > 1 else 1.0
    matrix = np.diag([*frames[0].spacing, depth, 1.0])
    return list(range(len(frames))), Grid((columns, rows, len(frames)), matrix)


def _parallel(frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """The common axes (3, 2) and the positions (n, 3) of frames; refuses different planes."""
    axes = frames[0].axes
    positions = [frame.position for frame in frames if frame.position is not None]
    same = len(positions) == len(frames) and all(
        frame.axes is not None
        and axes is not None
        and np.abs(frame.axes - axes).max() <= _SAME_DIRECTION * np.abs(axes).max()
        for frame in frames
    )
    if axes is None or not same:
        raise FileError(
            "The slices do not lie in parallel planes with the same pixel spacing; export one "
            "stack of slices, without its localizer."
        )
    return axes, np.array(positions)


def _refuse_gaps(heights: np.ndarray) -> None:
    """heights: (n,) mm along the normal, ascending."""
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    same = int((gaps < max(_UNEVEN * usual, 1e-4)).sum())
    if same or usual < 1e-4:
        raise FileError(
            f"{same + 1} or more slices lie at the same place, as in a time series or with several "
            "echoes; one volume was expected, so export a single one."
        )
    counts = gaps / usual
    missing = int((np.rint(counts) - 1).clip(0).sum())
    if missing:
        raise FileError(
            f"{missing} slices seem to be missing between the first and the last one; export the "
            "whole series again."
        )


def _refuse_bent(positions: np.ndarray, step: np.ndarray) -> None:
    regular = positions[0] + np.arange(len(positions))[:, None] * step
    error = np.linalg.norm(positions - regular, axis=1).max()
    if error > _UNEVEN * np.linalg.norm(step):
        raise FileError(
            f"The slices are not evenly spaced: one is {error:.2g} mm from where it should be; "
            "resample the series to even spacing."
        )
