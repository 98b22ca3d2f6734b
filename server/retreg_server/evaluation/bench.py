"""Runs every method on every pair, interleaved, and measures accuracy, verdict and cost."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from retreg.errors import RegistrationError, RetRegError
from retreg.resample import resample
from retreg.transforms import Affine, Chain, Transform
from retreg_server.evaluation.cases import Case, Pair
from retreg_server.evaluation.cost import Cost, measured
from retreg_server.evaluation.metrics import folding, landmark_distances, mean_dice
from retreg_server.evaluation.peers import Method

NAN = float("nan")


@dataclass(frozen=True)
class Row:
    """One pair registered by one method: a line of the result table.

    error, initial_error: the statistic of the case, in the unit of the benchmark (pixels of a
    1000-pixel picture, or mm), after and before. mean, median, largest: the errors of the points
    in pixels of the picture itself, or mm. folding: share of the voxels of a volume at which a
    transform that bends folds. dice, initial_dice: over the labels shared by both.
    message: why there is no transform. verdict is empty for methods that give none.
    """

    benchmark_set: str
    pair: str
    model: str
    right: bool
    category: str
    angle_deg: float
    error: float = NAN
    initial_error: float = NAN
    mean: float = NAN
    median: float = NAN
    largest: float = NAN
    folding: float = NAN
    dice: float = NAN
    initial_dice: float = NAN
    verdict: str = ""
    reason: str = ""
    message: str = ""
    seconds: float = NAN
    cpu_seconds: float = NAN
    peak_mb: float = NAN
    before_picture: str = ""
    after_picture: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Finished:
    """A row with what is needed to draw it; pair and transform are None when there is none."""

    row: Row
    pair: Pair | None = None
    transform: Transform | None = None


def run_cases(cases: Sequence[Case], methods: Mapping[str, Method]) -> Iterator[Finished]:
    """Register each pair with all methods in turn, a different one first each time.

    The first pair is registered once more beforehand, so that loading and compiling are not
    counted. A method that fails yields a row with the message.
    """
    names = list(methods)
    for number, case in enumerate(cases):
        pair, _ = measured(case.load)
        for position in range(len(names)):
            name = names[(number + position) % len(names)]
            if isinstance(pair, Exception):
                yield Finished(_row(case, name, message=f"Not loaded: {_sentence(pair)}"))
                continue
            if number == 0:
                measured(lambda: methods[name](pair.fixed, pair.moving))  # noqa: B023
            yield _finished(case, pair, name, methods[name])


def _finished(case: Case, pair: Pair, name: str, method: Method) -> Finished:
    gc.collect()
    answer, cost = measured(lambda: method(pair.fixed, pair.moving))
    if isinstance(answer, Exception):
        verdict = "fail" if isinstance(answer, RegistrationError) else "error"
        before = scores_of(case, pair, Affine.identity())
        scores = {key: before[key] for key in ("initial_error", "initial_dice")}
        row = _row(case, name, cost, message=_sentence(answer), verdict=verdict, **scores)
        return Finished(row, pair)
    row = _row(
        case,
        name,
        answer.cost or cost,
        verdict=answer.verdict,
        reason=answer.reason,
        numbers=answer.numbers,
        **scores_of(case, pair, answer.transform),
    )
    return Finished(row, pair, answer.transform)


def _row(case: Case, name: str, cost: Cost | None = None, **values: Any) -> Row:
    row = Row(case.benchmark_set, case.name, name, case.right, case.category, case.angle_deg)
    return replace(row, **({} if cost is None else vars(cost)), **values)


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, RetRegError) else f"{type(error).__name__}: {error}"


def scores_of(case: Case, pair: Pair, transform: Transform) -> dict[str, float]:
    """The measures of a row that compare a transform with the truth of the pair."""
    scores = _overlap(pair, transform) | {"folding": _folding(pair, transform)}
    if len(pair.fixed_points) == 0:
        return scores | {"initial_error": NAN}
    to_original = Chain((transform, pair.original_from_moving))
    after = landmark_distances(to_original, pair.fixed_points, pair.original_points)
    before = landmark_distances(
        pair.original_from_moving, pair.fixed_points, pair.original_points
    )
    statistic = np.mean if case.statistic == "mean" else np.median
    return scores | {
        "error": float(statistic(after)) / pair.error_unit_mm,
        "initial_error": float(statistic(before)) / pair.error_unit_mm,
        "mean": float(after.mean()),
        "median": float(np.median(after)),
        "largest": float(after.max()),
    }


def _folding(pair: Pair, transform: Transform) -> float:
    if pair.fixed.is_picture or isinstance(transform, Affine):
        return NAN
    return folding(transform, pair.fixed.grid)


def _overlap(pair: Pair, transform: Transform) -> dict[str, float]:
    """Mean Dice over the labels that both maps hold, before and after.

    The original labels are moved once, through both transforms, since every nearest-neighbour
    step would cost overlap.
    """
    if pair.fixed_labels is None or pair.original_labels is None:
        return {"dice": NAN, "initial_dice": NAN}
    fixed = pair.fixed_labels
    present = [set(np.unique(m.array).tolist()) for m in (fixed, pair.original_labels)]
    shared = sorted((present[0] & present[1]) - {0})
    scores = []
    for step in (transform, Affine.identity()):
        through = Chain((step, pair.original_from_moving))
        moved = resample(pair.original_labels, through, fixed.grid, nearest=True)
        scores.append(mean_dice(fixed.array, moved.array, shared))
    return {"dice": scores[0], "initial_dice": scores[1]}
