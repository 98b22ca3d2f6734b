"""The transform follows while people drag, delete or unselect keypoints, without the server.

As a rule the result is corrected: what it was, after a local correction by the pairs that were
changed or added. Each of them is met exactly, and nothing moves beyond the reach of the correction,
so a quadratic or deformable result stays one. Instead, a transform of another family can be fitted
to all pairs anew.

Each point lives in its own image: a fixed point in the world of the fixed image, a moving point in
that of the moving image as it was registered. The list of the moving points lies under the
transform, so they stay on the moving image wherever it is shown: people drag a point to where they
see its place in the moving image.

When a fixed point is dragged, the image follows the mouse. While a moving point is dragged, the
image under the mouse stays still, and is moved when the button is let go: it would else run away
from the mouse, since every step moves the very image that the point is put on. The numbers follow
in both cases.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from retreg.errors import InputError, OptionError
from retreg.fitting import Family, fit
from retreg.hand_edit import in_plane, usual_reach_mm
from retreg.local_correction import corrected, correction_of
from retreg.local_quality import LocalJudge
from retreg.quality import Quality
from retreg.transforms import Affine, Chain, Transform
from RetRegLib.refit.keypoint_pairs import KeypointPairs, PairsNow
from RetRegLib.scene.correspondences import fill_correspondences, residuals
from RetRegLib.scene.markups import fill_markups
from RetRegLib.scene.nodes import Node, parents
from RetRegLib.scene.outcome import Outcome
from RetRegLib.scene.reports import fill_metrics, note_edit
from RetRegLib.scene.transform_nodes import (
    CORRECTION_MM,
    FINE_PLACES,
    QUICK_SPLINE_POINTS,
    SKETCH_PLACES,
    SKETCHED_CORRECTION_MM,
    correct_transform_node,
    is_native,
    sketch_transform_node,
    transform_of,
    update_transform_node,
)
from RetRegLib.scene.volumes import grid_of_volume

Way = Literal["correction"] | Family
WAYS: tuple[Way, ...] = ("correction", *get_args(Family))


@dataclass(frozen=True, eq=False)
class Refit:
    """What the points say now.

    labels: of the n pairs. residuals_mm: (n,) of all pairs, unselected ones too. verdict: judged
    without the images (see LocalJudge). problem: a sentence when the points do not determine a
    transform; the last one is then kept.
    """

    transform: Transform
    labels: tuple[str, ...]
    residuals_mm: np.ndarray
    verdict: Quality
    seconds: float
    problem: str = ""

    @property
    def reach_mm(self) -> float:
        """How far the correction goes around its points: as was asked, or so far that nothing
        folds; 0 without one."""
        correction = correction_of(self.transform)
        return 0.0 if correction is None else correction.reach_mm


class LiveRefit:
    """Observes both point lists of an outcome and refits its transform; see the module.

    family: correction, or rigid, similarity, affine or tps to fit these to all pairs. smoothing: of
    the spline. reach_mm: of the correction, by default usual_reach_mm. Nothing changes until a
    point or one of these does. on_change is called after every change, on the main thread.
    Raises OptionError for another family.
    """

    def __init__(
        self,
        outcome: Outcome,
        family: str,
        smoothing: float,
        on_change: Callable[[Refit], None] | None = None,
        reach_mm: float | None = None,
    ) -> None:
        self.family, self.smoothing = _way(family), float(smoothing)
        self.reach_mm = usual_reach_mm(outcome.fixed_grid) if reach_mm is None else float(reach_mm)
        self._at_first = (self.family, self.smoothing, self.reach_mm)
        self._expecting = False
        self._outcome, self._on_change = outcome, on_change
        self._fixed_grid = outcome.fixed_grid
        self._moving_grid = grid_of_volume(outcome.moving, outcome.transform)
        self._judge = LocalJudge.of(outcome.result, self._fixed_grid)
        self._pairs = KeypointPairs(outcome.fixed_keypoints, outcome.moving_keypoints)
        self._fitted = self._pairs.now()
        self._dragged: Node | None = None
        self._settled, self._busy, self._resting_until = True, False, 0.0
        known = transform_of(outcome.transform) if outcome.is_edited else outcome.result.transform
        self.refit = self._described(known, self._pairs.now(), time.perf_counter())
        self._observers = [
            (node, node.AddObserver(event, partial(react, node)))
            for node in (outcome.fixed_keypoints, outcome.moving_keypoints)
            for event, react in (
                (node.PointModifiedEvent, self._changed),
                (node.PointRemovedEvent, self._changed),
                (node.PointPositionDefinedEvent, self._changed),
                (node.PointStartInteractionEvent, self._drag_begins),
                (node.PointEndInteractionEvent, self._drag_ends),
            )
        ]

    def set_family(self, family: str) -> None:
        """Correct the result, or fit a transform of a family. Raises OptionError for others."""
        self.family = _way(family)
        self._fit()

    def set_reach(self, reach_mm: float) -> None:
        """Let the correction reach so far around each changed point."""
        self.reach_mm = float(reach_mm)
        self._fit()

    def expect_points(self, expected: bool) -> None:
        """Whether fixed points that are placed from now on get a partner at once.

        It is put where the transform takes them, to be dragged from there.
        """
        self._expecting = expected

    def set_smoothing(self, value: float) -> None:
        """Let the spline bend more or less: 0 goes through the points, infinity is affine."""
        self.smoothing = float(value)
        self._fit()

    def reset(self) -> None:
        """Back to the keypoints, the transform, family and smoothing of the registration."""
        result, self._dragged = self._outcome.result, None
        self.family, self.smoothing, self.reach_mm = self._at_first
        with self._quiet():
            fill_markups(self._outcome.fixed_keypoints, result.fixed_keypoints)
            fill_markups(self._outcome.moving_keypoints, result.moving_keypoints)
            self._pairs.begin()
        self._fitted = self._pairs.now()
        self._tell(self._described(result.transform, self._fitted, time.perf_counter()))

    def settle(self) -> None:
        """Show exactly what was fitted.

        While things move, a sketch of large splines is shown (transform_nodes). It is replaced when
        the mouse is let go, by a finer one for splines that a node cannot hold; for those this
        takes a second, so it is left to whoever knows that people are resting, and to close.
        """
        if not self._settled and not self._correct_node(self.refit.transform):
            update_transform_node(self._outcome.transform, self.refit.transform, self._fixed_grid)
        self._settled = True

    def close(self) -> None:
        """Observe no longer; what was changed stays."""
        for node, tag in self._observers:
            node.RemoveObserver(tag)
        self._observers = []
        if self._outcome.transform.GetScene() is not None:
            self.settle()

    def _changed(self, node: Node, _caller: Any, _event: str) -> None:
        if self._busy or (self._dragged is not None and time.perf_counter() < self._resting_until):
            return
        self._follow(node)

    def _follow(self, node: Node) -> None:
        with self._quiet():
            if self._expecting:
                self._pairs.complete(self.refit.transform)
            self._pairs.follow(node)
            if self.family == "correction":
                self._pairs.select(self._moved())
        if self._pairs.now() != self._fitted:
            self._fit()

    def _drag_begins(self, node: Node, _caller: Any, _event: str) -> None:
        self._dragged = node

    def _drag_ends(self, node: Node, _caller: Any, _event: str) -> None:
        self._dragged = None
        self._follow(node)  # a mere click changes nothing
        if not self._settled:
            self._tell(self.refit)
        if is_native(self.refit.transform):
            self.settle()
        elif not self._settled:
            transform = self._outcome.transform
            sketch_transform_node(transform, self.refit.transform, self._fixed_grid, FINE_PLACES)

    def _fit(self) -> None:
        start = time.perf_counter()
        self._fitted = self._pairs.now()
        pairs = self._flattened(self._fitted)
        try:
            transform = self._fitted_to(pairs)
        except InputError as error:
            refit = self._described(self.refit.transform, pairs, start)
            self._tell(replace(refit, problem=str(error)))
        else:
            self._tell(self._described(transform, pairs, start))
        # Half of the time is left to whoever draws the views.
        self._resting_until = 2 * time.perf_counter() - start

    def _fitted_to(self, pairs: PairsNow) -> Transform:
        fixed, moving, result = pairs.fixed.points, pairs.moving.points, self._outcome.result
        if self.family != "correction":
            few = pairs.weights > 0
            if not len(result.fixed_keypoints) and 0 < few.sum() < 3:  # the first ones set by hand
                return _shifted(result.transform, fixed[few], moving[few])
            return fit(self.family, fixed, moving, pairs.weights, self.smoothing)
        points = result.fixed_keypoints.points, result.moving_keypoints.points
        used = self._fitted.changed_since(*points) & pairs.fixed.inliers
        if not used.any():
            return result.transform
        return corrected(result.transform, fixed[used], moving[used], self.reach_mm)

    def _moved(self) -> list[str]:
        """The labels of unselected pairs that were moved since the last fit: they are meant."""
        before, now = self._fitted, self._pairs.now()
        moved = now.changed_since(before.fixed.points, before.moving.points)
        named = zip(now.labels, moved, now.fixed.inliers, strict=True)
        return [label for label, new, used in named if new and not used and label in before.labels]

    def _described(self, transform: Transform, pairs: PairsNow, start: float) -> Refit:
        left = residuals(transform, pairs.fixed.points, pairs.moving.points)
        verdict = self._judge.quality(transform, pairs.fixed.points, left, pairs.fixed.inliers)
        self._draw(pairs, left)
        return Refit(transform, pairs.labels, left, verdict, time.perf_counter() - start)

    def _tell(self, refit: Refit) -> None:
        start, outcome = time.perf_counter(), self._outcome
        frozen = self._dragged is outcome.moving_keypoints and (
            outcome.transform in parents(outcome.moving_keypoints)
        )
        changed = refit.transform is not self.refit.transform
        if frozen:
            self._settled = self._settled and not changed
        elif changed or not self._settled:
            self._show(refit.transform)
        if self._dragged is None:
            fill_metrics(outcome.metrics, refit.verdict)
            edited = refit.transform is not outcome.result.transform
            note_edit(outcome.provenance, self._edit(refit) if edited else None)
        self.refit = replace(refit, seconds=refit.seconds + time.perf_counter() - start)
        if self._on_change is not None:
            self._on_change(self.refit)

    def _show(self, transform: Transform) -> None:
        """Set the transform; large splines, and all while something is dragged, as a sketch."""
        node, grid = self._outcome.transform, self._fixed_grid
        measured = transform is self._outcome.result.transform
        quick = is_native(transform, QUICK_SPLINE_POINTS) and self._dragged is None
        self._settled = measured or quick
        if measured:
            self._outcome.restore_transform()
        elif self._correct_node(transform):
            self._settled = self._dragged is None
        elif quick:
            update_transform_node(node, transform, grid)
        else:
            sketch_transform_node(node, transform, grid, SKETCH_PLACES)

    def _correct_node(self, transform: Transform) -> bool:
        """Set the transform when it is a correction of the result; more finely at rest."""
        correction, outcome = correction_of(transform), self._outcome
        if correction is None:
            return False
        exact = CORRECTION_MM if self._dragged is None else SKETCHED_CORRECTION_MM
        node = outcome.transform
        correct_transform_node(node, correction, outcome.carrier, self._fixed_grid, exact)
        return True

    def _draw(self, pairs: PairsNow, left: np.ndarray) -> None:
        if self._outcome.lines.GetScene() is not None:
            points = pairs.fixed.points, pairs.moving.points
            fill_correspondences(self._outcome.lines, *points, pairs.fixed.weights, left)

    def _edit(self, refit: Refit) -> dict[str, Any]:
        return {
            "transform": self.family,
            "smoothing": self.smoothing,
            "reach_mm": refit.reach_mm,
            "pairs": len(refit.labels),
            "verdict": refit.verdict.verdict,
            "reason": refit.verdict.reason,
        }

    def _flattened(self, pairs: PairsNow) -> PairsNow:
        """Points of a picture lie in its plane, though the mouse may be a little beside it."""
        fixed = in_plane(pairs.fixed.points, self._fixed_grid)
        moving = in_plane(pairs.moving.points, self._moving_grid)
        return replace(
            pairs,
            fixed=replace(pairs.fixed, points=fixed),
            moving=replace(pairs.moving, points=moving),
        )

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """What is done to the lists inside is our own doing."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False


def _shifted(transform: Transform, fixed: np.ndarray, moving: np.ndarray) -> Transform:
    """The transform, and then the shift that takes fixed to moving points (n, 3) on average."""
    shift = np.eye(4)
    shift[:3, 3] = (moving - transform(fixed)).mean(axis=0)
    if isinstance(transform, Affine):
        return Affine(shift @ transform.moving_from_fixed)
    return Chain((transform, Affine(shift)))


def _way(name: str) -> Way:
    if name not in WAYS:
        raise OptionError(
            f"The transform {name!r} cannot be fitted to keypoints; use one of {', '.join(WAYS)}."
        )
    return name
