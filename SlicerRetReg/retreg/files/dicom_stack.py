"""The regular grid that slices form together, or the sentence on why they form none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from retreg.errors import FileError
from retreg.files.dicom_geometry import Frame
from retreg.geometry import Grid

_SAME_DIRECTION = 1e-3  # of unit vectors and, relatively, of pixel spacings
_SAME_PIXEL, _SAME_SLICE = 1e-3, 0.02  # of pixel spacing and thickness: never two slices' distance
_UNEVEN = 0.05  # of the distance of slices; positions are often rounded to 0.1 mm
_PLANES = ("sagittal", "coronal", "axial")


def unplaced_grid(frame: Frame, count: int, columns: int, rows: int) -> Grid:
    """Of a picture: pixel (x, y) is the point (x, y, 0), times its spacing; count such frames."""
    depth = (frame.thickness_mm or 1.0) if count > 1 else 1.0
    return Grid((columns, rows, count), np.diag([*frame.spacing, depth, 1.0]))


def stacked(frames: Sequence[Frame], columns: int, rows: int) -> tuple[list[int], Grid]:
    """The order of the frames along their normal, and the grid they form.

    The frames lie at different places, see places. Raises FileError when they do not lie on one
    regular grid.
    """
    axes, positions, normal = _parallel(frames)
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    step = normal * (frames[0].thickness_mm or 1.0)
    if len(frames) > 1:
        _refuse_uneven(heights[order])
        step = (positions[order[-1]] - positions[order[0]]) / (len(frames) - 1)
        _refuse_bent(positions[order], step)
    matrix = np.eye(4)
    matrix[:3, :2], matrix[:3, 2], matrix[:3, 3] = axes, step, positions[order[0]]
    return order.tolist(), Grid((columns, rows, len(frames)), matrix)


def places(frames: Sequence[Frame]) -> list[list[int]]:
    """The numbers of the frames at each place, ascending along the normal.

    Raises FileError for frames in different planes and for stacks side by side.
    """
    _, positions, normal = _parallel(frames)
    heights = positions @ normal
    thickness = frames[0].thickness_mm or 0.0
    tolerance = max(_SAME_PIXEL * min(frames[0].spacing), _SAME_SLICE * thickness, 1e-4)
    found: list[list[int]] = []
    for n in np.argsort(heights, kind="stable").tolist():
        if found and heights[n] - heights[found[-1][0]] <= tolerance:
            found[-1].append(n)
        else:
            found.append([n])
    for group in found:
        apart = np.linalg.norm(positions[group] - positions[group[0]], axis=1).max()
        if apart > 2 * tolerance:
            raise FileError(
                f"{len(group)} slices lie in the same plane, {apart:.3g} mm apart, as in two "
                "stacks side by side; export one stack of slices."
            )
    return found


def _parallel(frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The common axes (3, 2), positions (n, 3) and normal (3,); refuses different planes."""
    axes = [frame.axes for frame in frames if frame.axes is not None]
    positions = [frame.position for frame in frames if frame.position is not None]
    if not len(axes) == len(positions) == len(frames):
        raise FileError(
            f"{len(frames) - len(axes)} of the {len(frames)} slices have no position in space; "
            "export the whole series again."
        )
    first, all_axes = axes[0], np.array(axes)
    if not (np.abs(all_axes - first) <= _SAME_DIRECTION * np.abs(first).max()).all():
        raise FileError(
            f"The {len(frames)} slices do not lie in parallel planes with the same pixel spacing "
            f"({_orientations(all_axes)}); a localizer and stacks of several directions cannot "
            "be one volume, so export one stack of slices."
        )
    normal = np.cross(first[:, 0], first[:, 1])
    return first, np.array(positions), normal / np.linalg.norm(normal)


def _orientations(axes: np.ndarray) -> str:
    """How many slices lie in which of the body's planes, or how many have which spacing."""
    normals = np.cross(axes[:, :, 0], axes[:, :, 1])
    units = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    kinds = Counter(
        ("" if np.abs(unit).max() > 0.999 else "oblique ") + _PLANES[int(np.abs(unit).argmax())]
        for unit in units
    )
    if len(kinds) > 1:
        return ", ".join(f"{count} {name}" for name, count in sorted(kinds.items()))
    spacings = np.linalg.norm(axes, axis=1).round(3)
    if len(different := np.unique(spacings, axis=0)) > 1:
        return "spacings of " + " and ".join(f"{i:g} x {j:g} mm" for i, j in different[:4])
    return f"all {next(iter(kinds))}, but turned against each other"


def _refuse_uneven(heights: np.ndarray) -> None:
    """heights: (n,) mm along the normal, ascending. Says where the first irregularity is."""
    gaps = np.diff(heights)
    usual = _usual(gaps)
    odd = np.abs(gaps - usual) > _UNEVEN * usual
    if not odd.any():
        return
    where = int(odd.argmax())
    gap, change = gaps[where], _change(gaps)
    between = f"slices {where + 1} and {where + 2}"
    if change:
        raise FileError(
            f"The distance of the slices changes from {gaps[0]:.4g} to {gaps[change]:.4g} mm "
            f"after slice {change + 1} of {len(heights)}; one distance was expected, so resample "
            "the series to even spacing or give one of its parts."
        )
    counts = np.rint(gaps / usual)
    whole = (np.abs(gaps - counts * usual) <= _UNEVEN * usual * np.maximum(counts, 1)).all()
    if whole and counts.min() >= 1:
        missing = int((counts - 1).sum())
        verb = "slice seems" if missing == 1 else "slices seem"
        raise FileError(
            f"{missing} {verb} to be missing: {between} of {len(heights)} lie {gap:.4g} mm apart, "
            f"where {usual:.4g} mm was expected; export the whole series again."
        )
    raise FileError(
        f"The slices are not evenly spaced: {between} of {len(heights)} lie {gap:.4g} mm apart, "
        f"where {usual:.4g} mm was expected; resample the series to even spacing."
    )


def _usual(gaps: np.ndarray) -> float:
    """The distance that most of the slices have; the smallest one of several such."""
    ascending = np.sort(gaps)
    ends = [np.searchsorted(ascending, gaps * (1 + sign * _UNEVEN)) for sign in (-1, 1)]
    alike = ends[1] - ends[0]
    most = gaps[alike == alike.max()]
    return float(np.median(most[most <= most.min() * (1 + _UNEVEN)]))


def _change(gaps: np.ndarray) -> int:
    """Where one distance gives way to another for the rest of the series; 0 if nowhere."""
    other = np.abs(gaps - gaps[0]) > _UNEVEN * gaps[0]
    start = int(other.argmax())
    if 2 <= start <= len(gaps) - 2:
        rest = gaps[start:]
        if (np.abs(rest - rest[0]) <= _UNEVEN * rest[0]).all():
            return start
    return 0


def _refuse_bent(positions: np.ndarray, step: np.ndarray) -> None:
    regular = positions[0] + np.arange(len(positions))[:, None] * step
    error = np.linalg.norm(positions - regular, axis=1).max()
    if error > _UNEVEN * np.linalg.norm(step):
        raise FileError(
            f"The slices are not evenly spaced: one is {error:.2g} mm from where it should be; "
            "resample the series to even spacing."
        )
