"""Sums up the rows of one model: measures by name, as text for a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from retreg_server.evaluation.bench import Row
from retreg_server.evaluation.brain import ANGLE_BINS
from retreg_server.evaluation.metrics import (
    FAILURE_PIXELS,
    area_under_curve,
    fire_class_of,
    rate,
    success_curve,
)

Summary = Callable[[Sequence[Row]], dict[str, str]]
AUC_LIMITS = (15, 25, 50)
BRAIN_FAILURE_MM = 10.0


def failure_limit(benchmark: str) -> float:
    """The error from which a registration counts as failed: 25 px of 1000, or 10 mm."""
    return FAILURE_PIXELS if benchmark == "retina" else BRAIN_FAILURE_MM


def retina_errors(rows: Sequence[Row]) -> dict[str, str]:
    """Landmark errors in pixels of a 1000-pixel picture."""
    errors = errors_of(rows)
    measures = _errors("px of 1000", FAILURE_PIXELS, (10, 25), rows)
    for limit in AUC_LIMITS:
        measures[f"AUC@{limit}"] = f"{area_under_curve(errors, limit):.3f}"
    return measures


def fire_errors(rows: Sequence[Row]) -> dict[str, str]:
    """retina_errors, and FIRE's own measures in pixels of the original picture."""
    means = [_finite(row.mean) for row in rows]
    measures = retina_errors(rows)
    measures["mean landmark error, original px"] = number(float(np.mean(means)))
    for limit in AUC_LIMITS:
        areas = []
        for category in sorted({row.category for row in rows}):
            members = [_finite(row.mean) for row in rows if row.category == category]
            areas.append(area_under_curve(members, limit))
            measures[f"FIRE {category} AUC@{limit}"] = f"{areas[-1]:.3f}"
        measures[f"FIRE mAUC@{limit}"] = f"{np.mean(areas):.3f}"
    for limit in (15, 25, 50):
        measures[f"FIRE success at {limit} px"] = f"{100 * success_curve(means, [limit])[0]:.0f} %"
    classes = [fire_class_of(row.median, row.largest) for row in rows]
    for name in ("failed", "inaccurate", "acceptable"):
        measures[f"FIRE {name}"] = percent(found == name for found in classes)
    return measures


def brain_errors(rows: Sequence[Row]) -> dict[str, str]:
    """Mean distances to the true transform in mm, also for each range of the known angle."""
    measures = _errors("mm", BRAIN_FAILURE_MM, (1, 2), rows) | _folds(rows)
    for label, members in _by_angle(rows):
        errors = errors_of(members)
        within = percent(error <= 2 for error in errors)
        measures[f"{label}: within 2 mm, median"] = f"{within}, {number(np.median(errors))}"
    return measures


def overlaps(rows: Sequence[Row]) -> dict[str, str]:
    """Dice over shared labels; a pair without a transform counts as 0."""
    measures = {
        "pairs": str(len(rows)),
        "mean Dice": f"{np.mean(_dices(rows)):.3f}",
        "lowest Dice": f"{min(_dices(rows)):.3f}",
        "initial mean Dice": f"{np.nanmean([row.initial_dice for row in rows]):.3f}",
    } | _folds(rows)
    for label, members in _by_angle(rows):
        measures[f"{label}: mean Dice"] = f"{np.mean(_dices(members)):.3f}"
    return measures


def verdicts_on_wrong_pairs(rows: Sequence[Row]) -> dict[str, str]:
    """How many pairs that do not belong together were accepted, doubted and rejected.

    Empty for methods that give no verdict; they accept everything.
    """
    wrong = [row for row in rows if not row.right]
    if not wrong or not _judges(rows):
        return {}
    measures = {
        f"{name}: accept / check / fail": _verdicts(
            [row for row in wrong if row.benchmark_set == name]
        )
        for name in dict.fromkeys(row.benchmark_set for row in wrong)
    }
    measures["all: accept / check / fail"] = _verdicts(wrong)
    measures["false-accept rate"] = percent(accepted(row) for row in wrong)
    return measures


def verdicts_on_right_pairs(rows: Sequence[Row], limit: float) -> dict[str, str]:
    """The same of the pairs that belong together; limit: the error that counts as failed."""
    right = [row for row in rows if row.right]
    if not right or not _judges(rows):
        return {}
    by_set = {
        f"{name}: accept / check / fail": _verdicts(
            [row for row in right if row.benchmark_set == name]
        )
        for name in dict.fromkeys(row.benchmark_set for row in right)
    }
    bad = [row for row in right if row.error > limit]
    good = [row for row in right if row.error <= limit]
    return by_set | {
        "all: accept / check / fail": _verdicts(right),
        "false-reject rate (fail)": percent(rejected(row) for row in right),
        "doubted (check)": percent(row.verdict == "check" for row in right),
        f"accepted although the error is > {limit:g}": str(sum(map(accepted, bad))),
        f"rejected although the error is ≤ {limit:g}": str(sum(map(rejected, good))),
    }


def costs(rows: Sequence[Row], base: Sequence[Row]) -> dict[str, str]:
    """Medians over right pairs with a transform; ratios pair by pair to the model of base."""
    of_pair = {(row.benchmark_set, row.pair): row for row in base if _counts(row)}
    mine = [row for row in rows if _counts(row)]
    if not mine:
        return {}
    both = [(row, of_pair.get((row.benchmark_set, row.pair))) for row in mine]
    shared = [(row, other) for row, other in both if other is not None]
    measures = {
        "seconds, median": number(np.median([row.seconds for row in mine])),
        "processor seconds, median": number(np.median([row.cpu_seconds for row in mine])),
        "highest memory, MB": f"{max(row.peak_mb for row in mine):.0f}",
    }
    if shared:
        wall = [row.seconds / other.seconds for row, other in shared]
        cpu = [row.cpu_seconds / max(other.cpu_seconds, 1e-9) for row, other in shared]
        measures[f"seconds relative to {base[0].model}"] = f"{np.median(wall):.2f}"
        measures[f"processor seconds relative to {base[0].model}"] = f"{np.median(cpu):.2f}"
    return measures


def accepted(row: Row) -> bool:
    """Accepted by verdict, or answered by a method that gives no verdict."""
    return row.verdict in ("accept", "") and not row.message


def rejected(row: Row) -> bool:
    """Rejected by verdict, or without any transform."""
    return row.verdict == "fail" or bool(row.message)


def number(value: float | np.floating) -> str:
    """A measure with two digits, or the words for an infinite one."""
    if math.isinf(value):
        return "no transform"
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def percent(flags: Iterable[bool]) -> str:
    """The share of flags that are true; nothing when there are none."""
    share = rate(flags)
    return f"{100 * share:.1f} %" if math.isfinite(share) else ""


def errors_of(rows: Iterable[Row]) -> list[float]:
    """One error per row, infinite where there is no transform."""
    return [_finite(row.error) for row in rows]


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _errors(
    unit: str, limit: float, bounds: Sequence[int], rows: Sequence[Row]
) -> dict[str, str]:
    errors = errors_of(rows)
    measures = {
        "pairs": str(len(rows)),
        f"median error, {unit}": number(np.median(errors)),
        f"90th percentile, {unit}": number(np.percentile(errors, 90, method="higher")),
        f"worst, {unit}": number(max(errors)),
        f"failures (> {limit:g})": str(sum(error > limit for error in errors)),
        f"initial median, {unit}": number(np.nanmedian([row.initial_error for row in rows])),
    }
    for bound in bounds:
        measures[f"within {bound} {unit}"] = percent(error <= bound for error in errors)
    return measures


def _folds(rows: Sequence[Row]) -> dict[str, str]:
    """The worst pair; nothing for transforms that cannot fold."""
    shares = [row.folding for row in rows if math.isfinite(row.folding)]
    return {"folded voxels, worst pair": f"{100 * max(shares):.4f} %"} if shares else {}


def _by_angle(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    groups = [
        (f"{low} to {high}°", [row for row in rows if low <= row.angle_deg < high])
        for low, high in ANGLE_BINS
    ]
    return [(label, members) for label, members in groups if members]


def _dices(rows: Iterable[Row]) -> list[float]:
    return [row.dice if math.isfinite(row.dice) else 0.0 for row in rows]


def _verdicts(rows: Sequence[Row]) -> str:
    doubted = sum(row.verdict == "check" for row in rows)
    return f"{sum(map(accepted, rows))} / {doubted} / {sum(map(rejected, rows))}"


def _judges(rows: Sequence[Row]) -> bool:
    return any(row.verdict and not row.message for row in rows)


def _counts(row: Row) -> bool:
    return row.right and not row.message
