"""A result whose keypoints were edited by hand, outside Slicer: the pairs, and what follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from retreg.correction_fields import correction_fields
from retreg.errors import InputError, OptionError
from retreg.fitting import Family, fit
from retreg.geometry import Grid
from retreg.local_correction import corrected, correction_of
from retreg.local_quality import LocalJudge
from retreg.messages import Keypoints, RegistrationResult
from retreg.transforms import FIELD_TOLERANCE_MM, Chain, Transform

WAYS: tuple[str, ...] = ("correction", *get_args(Family))
_SAME_PLACE = 1e-3  # mm, to which files keep points
_REACH_VOXELS, _REACH_SHARE = 100.0, 0.12  # of the longest side; the smaller one counts
_MOST_LINKS = 15  # of one chain that travels


@dataclass(frozen=True, eq=False)
class HandEdit:
    """The pairs as people left them, and how they lead to a transform.

    fixed, moving: (n, 3) LPS mm; the first ones are those of the result, in its order, and more may
    follow. used: (n,) bool. way: "correction" of the result by what was changed, or a family of
    retreg.fitting for all pairs. smoothing: of tps. reach_mm: of the correction.
    Raises InputError when the arrays do not belong together, OptionError for another way.
    """

    fixed: np.ndarray
    moving: np.ndarray
    used: np.ndarray
    way: str
    smoothing: float
    reach_mm: float

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise OptionError(
                f"The transform {self.way!r} cannot be fitted to keypoints; use one of "
                f"{', '.join(WAYS)}."
            )
        if self.fixed.shape != self.moving.shape or len(self.used) != len(self.fixed):
            raise InputError(
                "As many fixed as moving points were expected, and for each whether it is used."
            )
        if not self.reach_mm > 0 or not self.smoothing >= 0:
            raise InputError("A reach above 0 and a smoothing of 0 or more were expected.")


def usual_reach_mm(grid: Grid) -> float:
    """How far around a changed point the image follows, unless people choose."""
    length = float((grid.spacing * grid.size).max())
    return min(_REACH_VOXELS * float(grid.spacing.min()), _REACH_SHARE * length)


def in_plane(points: np.ndarray, grid: Grid) -> np.ndarray:
    """Points (n, 3) LPS mm brought into the plane of a picture; those of a volume as they are."""
    if not grid.is_plane:
        return points
    index = grid.index(points)
    index[:, 2] = 0
    return grid.world(index)


def edited(
    result: RegistrationResult,
    edit: HandEdit,
    fixed_grid: Grid,
    moving_grid: Grid | None,
    origin: str,
) -> RegistrationResult:
    """The result that the edited pairs lead to, judged without the images.

    moving_grid: where it is known, points of a picture are brought into its plane. origin: names
    the result that was edited, for the provenance. The way back is not known any
    more. Raises DegeneratePointsError or InputError when the pairs do not lead to a transform.
    """
    fixed = in_plane(edit.fixed, fixed_grid)
    moving = edit.moving if moving_grid is None else in_plane(edit.moving, moving_grid)
    weights = _weights(result, len(fixed))
    transform = _transform(result, edit, fixed, moving, weights)
    residuals = np.linalg.norm(transform(fixed) - moving, axis=1)
    quality = LocalJudge.of(result, fixed_grid).quality(transform, fixed, residuals, edit.used)
    return RegistrationResult(
        _storable(transform, fixed_grid),
        Keypoints(fixed, weights, edit.used),
        Keypoints(moving, weights, edit.used),
        quality,
        {**result.provenance, "edited": _description(edit, transform, origin)},
        notes=(*result.notes, f"The keypoints were edited by hand from {origin}."),
    )


def _transform(
    result: RegistrationResult,
    edit: HandEdit,
    fixed: np.ndarray,
    moving: np.ndarray,
    weights: np.ndarray,
) -> Transform:
    if edit.way in get_args(Family):
        family: Any = edit.way
        return fit(family, fixed, moving, np.where(edit.used, weights, 0.0), edit.smoothing)
    chosen = _changed(result, fixed, moving) & edit.used
    if not chosen.any():
        raise InputError("No keypoint in use was changed; move one, or fit another transform.")
    return corrected(result.transform, fixed[chosen], moving[chosen], edit.reach_mm)


def _changed(result: RegistrationResult, fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """(n,) bool: which pairs are not where the result has them."""
    before = np.hstack([result.fixed_keypoints.points, result.moving_keypoints.points])
    now = np.hstack([fixed, moving])
    known = min(len(before), len(now))
    changed = np.ones(len(now), dtype=bool)
    changed[:known] = np.abs(now[:known] - before[:known]).max(axis=1) > _SAME_PLACE
    return changed


def _weights(result: RegistrationResult, count: int) -> np.ndarray:
    """(count,) those of the result, and 1 for points that were added."""
    given = result.fixed_keypoints.weights[:count]
    return np.concatenate([given, np.ones(count - len(given))])


def _storable(transform: Transform, grid: Grid) -> Transform:
    """The transform with fields in place of a correction, within FIELD_TOLERANCE_MM."""
    correction = correction_of(transform)
    if correction is None or not isinstance(transform, Chain):
        return transform
    links: tuple[Transform, ...] = correction_fields(correction, grid, FIELD_TOLERANCE_MM)
    while len(links) > _MOST_LINKS:
        links = tuple(
            Chain(links[n : n + _MOST_LINKS]) for n in range(0, len(links), _MOST_LINKS)
        )
    return Chain((*links, *transform.transforms[1:]))


def _description(edit: HandEdit, transform: Transform, origin: str) -> dict[str, Any]:
    correction = correction_of(transform)
    return {
        "by": "hand",
        "from": origin,
        "transform": edit.way,
        "smoothing": float(edit.smoothing),
        "reach_mm": 0.0 if correction is None else float(correction.reach_mm),
        "pairs": len(edit.used),
        "used": int(edit.used.sum()),
    }
