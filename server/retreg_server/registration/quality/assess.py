"""Measures a registration on the images themselves, independently of the model that made it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from retreg.geometry import Grid
from retreg.messages import Keypoints
from retreg.quality import Quality, inverse_consistency, jacobian_determinants, judge
from retreg.transforms import Transform
from retreg_server.registration.model import Estimate


class Measure(Protocol):
    """Two images, prepared so that any transform between them can be measured."""

    grid: Grid

    @property
    def points(self) -> np.ndarray:
        """Points (n, 3) LPS mm inside the object that the fixed image shows."""

    def measure(self, transform: Transform) -> dict[str, float]:
        """Similarity numbers of the fixed image and the moving one under transform."""

    def unmoved(self) -> dict[str, float]:
        """agreement and nmi of the images as they lie in the world."""


def assess(measure: Measure, fixed: Grid, moving: Grid, estimate: Estimate) -> Quality:
    """All quality numbers of an estimate and the verdict that follows from them.

    measure: of the two images, which lie on the grids. Numbers that could not be measured are left
    out.
    """
    numbers = {
        **estimate.evidence,
        **measure.measure(estimate.transform),
        **{f"{name}_before": value for name, value in measure.unmoved().items()},
        **_geometry(measure, moving, estimate),
        **_keypoints(estimate.fixed_keypoints),
    }
    if estimate.undeformed is not None:
        numbers["agreement_undeformed"] = measure.measure(estimate.undeformed)["agreement"]
    known = {name: float(value) for name, value in numbers.items() if np.isfinite(value)}
    return Quality(known, *judge(known, "px" if fixed.is_unscaled_picture else "mm"))


def _geometry(measure: Measure, moving: Grid, estimate: Estimate) -> dict[str, float]:
    """Numbers that need the transforms alone: consistency, Jacobian, displacement."""
    points = measure.points
    seen = points[moving.contains(estimate.transform(points))]
    if len(seen) == 0:
        return {}
    extent = float(np.linalg.norm(np.ptp(points, axis=0)))
    frame = measure.grid.direction[:, : 2 if measure.grid.is_plane else 3]
    step = float(measure.grid.spacing.min())
    determinants = jacobian_determinants(estimate.transform, seen, frame, step)
    displacement = np.linalg.norm(estimate.transform(points) - points, axis=1)
    numbers = {
        "jacobian_min": float(determinants.min()),
        "jacobian_max": float(determinants.max()),
        "folding": float((determinants <= 0).mean()),
        "displacement_mean_mm": float(displacement.mean()),
        "displacement_max_mm": float(displacement.max()),
    }
    if estimate.backward is not None:
        errors = inverse_consistency(estimate.transform, estimate.backward, seen)
        numbers["inverse_consistency_mean_mm"] = float(errors.mean())
        numbers["inverse_consistency_p95_mm"] = float(np.percentile(errors, 95))
        numbers["inconsistency"] = numbers["inverse_consistency_p95_mm"] / max(extent, 1e-12)
    return numbers


def _keypoints(keypoints: Keypoints) -> dict[str, float]:
    inliers = float(keypoints.inliers.sum())
    return {"inliers": inliers, "inlier_ratio": inliers / max(len(keypoints), 1)}
