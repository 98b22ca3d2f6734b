"""What can be said of a transform that was edited by hand, without comparing the images again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retreg.geometry import Grid
from retreg.messages import RegistrationResult
from retreg.quality import Quality, jacobian_determinants, judge
from retreg.transforms import ThinPlateSpline, Transform

_PROBES = 125
_SHARPEST = 12
_SAME_VOXELS = 0.5  # a change below this leaves what was measured on the images true


@dataclass(frozen=True, eq=False)
class LocalJudge:
    """Compares an edited transform with the measured one at points (n, 3) of the fixed image."""

    result: RegistrationResult
    grid: Grid
    probes: np.ndarray
    measured: np.ndarray  # where the measured transform puts them

    @classmethod
    def of(cls, result: RegistrationResult, grid: Grid) -> LocalJudge:
        """For the result of a registration to the image on grid."""
        axes = 2 if grid.is_plane else 3
        count = round(_PROBES ** (1 / axes))
        ends = [
            (np.arange(count) + 0.5) / count * n - 0.5 if n > 1 else np.zeros(1) for n in grid.size
        ]
        i, j, k = np.meshgrid(*ends, indexing="ij")
        probes = grid.world(np.stack([i.ravel(), j.ravel(), k.ravel()], axis=1))
        return cls(result, grid, probes, result.transform(probes))

    def quality(
        self,
        transform: Transform,
        points: np.ndarray,
        residuals_mm: np.ndarray,
        inliers: np.ndarray,
    ) -> Quality:
        """Numbers and verdict of a transform that the pairs led to.

        points: (n, 3) fixed ones, looked at too, as corrections are local. residuals_mm: (n,).
        Folds make it fail. As long as it hardly differs from the measured transform, the verdict
        on that one stands. Else people have to look: the images were not compared again.
        """
        if transform is self.result.transform:
            return self.result.quality
        numbers = self._geometry(transform, points) | _of_pairs(residuals_mm, inliers)
        measured = self.result.quality
        unit = "px" if self.grid.is_unscaled_picture else "mm"
        if numbers["folding"] > 0:
            return Quality(numbers, *judge(numbers, unit))
        if not measured.numbers:  # points set by hand are all there is
            return Quality(numbers, measured.verdict, measured.reason)
        if numbers["change_max_mm"] <= _SAME_VOXELS * float(self.grid.spacing.min()):
            known = {**measured.numbers, **numbers}
            return Quality(known, measured.verdict, measured.reason)
        return Quality(
            numbers,
            "check",
            f"Edited by hand, up to {numbers['change_max_mm']:.2g} {unit} away from what was "
            "measured on the images; look at it before you use it.",
        )

    def _geometry(self, transform: Transform, points: np.ndarray) -> dict[str, float]:
        moved = transform(self.probes)
        change = np.vstack([moved, transform(points)])
        change -= np.vstack([self.measured, self.result.transform(points)])
        frame = self.grid.direction[:, : 2 if self.grid.is_plane else 3]
        step = float(self.grid.spacing.min())
        places = np.vstack([self.probes, points, _sharpest(transform, step)])
        determinants = jacobian_determinants(transform, places, frame, step)
        displacements = np.linalg.norm(moved - self.probes, axis=1)
        return {
            "jacobian_min": float(determinants.min()),
            "jacobian_max": float(determinants.max()),
            "folding": float((determinants <= 0).mean()),
            "displacement_mean_mm": float(displacements.mean()),
            "displacement_max_mm": float(displacements.max()),
            "change_max_mm": float(np.linalg.norm(change, axis=1).max()),
        }


def _sharpest(transform: Transform, step_mm: float) -> np.ndarray:
    """Places (n, 3) where a spline would fold first: beside the points that bend it most.

    Around a centre with the coefficient c, the derivative is A - c n^T with the direction n from
    the centre, so its determinant is smallest about where n points along c.
    """
    if not isinstance(transform, ThinPlateSpline):
        return np.zeros((0, 3))
    spline = transform.spline
    bends = np.linalg.norm(spline.coefficients, axis=1)
    most = [n for n in np.argsort(-bends)[:_SHARPEST] if bends[n] > 0]
    return spline.centres[most] + step_mm * spline.coefficients[most] / bends[most, None]


def _of_pairs(residuals_mm: np.ndarray, inliers: np.ndarray) -> dict[str, float]:
    used = residuals_mm[inliers]
    return {
        "inliers": float(inliers.sum()),
        "inlier_ratio": float(inliers.sum() / max(len(inliers), 1)),
        "residual_rms_mm": float(np.sqrt((used**2).mean())) if len(used) else 0.0,
        "residual_max_mm": float(used.max(initial=0.0)),
    }
