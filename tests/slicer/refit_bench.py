"""An outcome whose points a test can move, drag and read."""

from __future__ import annotations

from typing import Any

import numpy as np
from scene_content import (
    FIXED_GRID,
    MOVING_GRID,
    mapped_from_world,
    points_in,
    result_of,
    smooth_image,
)

from retreg import fitting
from retreg.messages import RegistrationResult

SIGNS = np.array([-1.0, -1, 1])


def result_with(count: int, grid: Any = FIXED_GRID, noise: float = 0.5) -> RegistrationResult:
    """The smoothing spline of noisy keypoints, whose first two are outliers."""
    fixed = points_in(grid, count, seed=count)
    shift = np.random.default_rng(1).normal(0, noise, fixed.shape)
    if grid.is_plane:
        shift[:, 2] = 0
    moving = 1.03 * fixed + shift
    plain = result_of(lambda points: points, fixed, moving)
    weights = np.where(plain.fixed_keypoints.inliers, plain.fixed_keypoints.weights, 0)
    transform = fitting.fit_tps(fixed, moving, weights, 0.1)
    return result_of(transform, fixed, moving)


class Bench:
    """An outcome with its live refit, and what it told."""

    def __init__(
        self,
        scene: Any,
        result: RegistrationResult,
        grid: Any = FIXED_GRID,
        family: str = "tps",
        **how: Any,
    ) -> None:
        from RetRegLib.refit.live_refit import LiveRefit
        from RetRegLib.scene.outcome import show_outcome
        from RetRegLib.scene.volumes import volume_from_image

        other = MOVING_GRID if grid is FIXED_GRID else grid
        fixed = volume_from_image(smooth_image(grid), "fixed", scene)
        moving = volume_from_image(smooth_image(other), "moving", scene)
        self.grid = grid
        self.outcome = show_outcome(result, fixed, moving)
        self.fixed, self.moving = self.outcome.fixed_keypoints, self.outcome.moving_keypoints
        self.told: list[Any] = []
        self.live = LiveRefit(self.outcome, family, 0.1, self.told.append, **how)

    def move(self, points: Any, index: int, lps_mm: Any) -> None:
        """As a script does: the point is moved in its own coordinates."""
        place = np.array(points.GetNthControlPointPosition(index)) + np.array(lps_mm) * SIGNS
        points.SetNthControlPointPosition(index, place)

    def drag(self, points: Any, index: int, world: Any) -> None:
        """As the mouse does: the point is put at a place in the world."""
        points.SetNthControlPointPositionWorld(index, np.array(world) * SIGNS)

    def begin(self, points: Any) -> None:
        points.InvokeEvent(points.PointStartInteractionEvent)

    def end(self, points: Any) -> None:
        points.InvokeEvent(points.PointEndInteractionEvent)

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is in the lists now, read without the code under test."""
        places = [
            np.array([p.GetNthControlPointPosition(n) for n in range(p.GetNumberOfControlPoints())])
            for p in (self.fixed, self.moving)
        ]
        weights = [
            float(self.fixed.GetNthControlPointDescription(n).split("=")[1])
            * self.fixed.GetNthControlPointSelected(n)
            for n in range(len(places[0]))
        ]
        return places[0] * SIGNS, places[1] * SIGNS, np.array(weights)

    def pairs_of(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The fixed and the moving point (1, 3) of one index."""
        fixed, moving = (
            np.array(points.GetNthControlPointPosition(index))[None] * SIGNS
            for points in (self.fixed, self.moving)
        )
        return fixed, moving

    def expected(self, family: str = "tps", smoothing: float = 0.1) -> Any:
        return fitting.fit(family, *self.pairs(), smoothing)

    def shown(self, points: np.ndarray) -> np.ndarray:
        """Where the node takes points now."""
        return mapped_from_world(self.outcome.transform, points)

    @property
    def probes(self) -> np.ndarray:
        return points_in(self.grid, 60, seed=77)
