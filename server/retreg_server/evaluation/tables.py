"""The tables of a report: one line per measure or pair, one column per model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from retreg_server.evaluation.bench import Row
from retreg_server.evaluation.summaries import (
    Summary,
    brain_errors,
    costs,
    failure_limit,
    fire_errors,
    number,
    overlaps,
    retina_errors,
    verdicts_on_right_pairs,
    verdicts_on_wrong_pairs,
)


@dataclass(frozen=True)
class Table:
    """A titled table of text cells."""

    title: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def summary_tables(rows: Sequence[Row], benchmark: str) -> list[Table]:
    """The measures of each set, the verdicts and the cost, for all models of the run."""
    models = models_of(rows)
    right = [row for row in rows if row.right]
    tables = []
    for name in dict.fromkeys(row.benchmark_set for row in right):
        members = [row for row in right if row.benchmark_set == name]
        tables.append(_table(f"Set {name}", _summary_of(members, benchmark), members, models))
    on_right = partial(verdicts_on_right_pairs, limit=failure_limit(benchmark))
    base = [row for row in rows if row.model == rows[0].model]
    return [
        *tables,
        _table("Verdict on wrong pairs", verdicts_on_wrong_pairs, rows, models),
        _table("Verdict on right pairs", on_right, rows, models),
        _table("Cost", partial(costs, base=base), rows, models),
    ]


def pair_tables(rows: Sequence[Row]) -> list[Table]:
    """Each set with one line per pair: error or Dice, and the verdict."""
    models = models_of(rows)
    tables = []
    for name in dict.fromkeys(row.benchmark_set for row in rows):
        cells: dict[str, dict[str, str]] = {}
        for row in rows:
            if row.benchmark_set == name:
                cells.setdefault(row.pair, {})[row.model] = _cell(row)
        lines = tuple(
            (pair, *(known.get(model, "") for model in models)) for pair, known in cells.items()
        )
        tables.append(Table(f"Pairs of {name}", ("", *models), lines))
    return tables


def models_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The models in the order in which they were named: the first pair ran them in that order."""
    return tuple(dict.fromkeys(row.model for row in rows))


def _summary_of(members: Sequence[Row], benchmark: str) -> Summary:
    if any(math.isfinite(row.initial_dice) for row in members):
        return overlaps
    if benchmark != "retina":
        return brain_errors
    return fire_errors if members[0].benchmark_set == "fire" else retina_errors


def _table(
    title: str, summary: Summary, rows: Sequence[Row], models: tuple[str, ...]
) -> Table:
    by_model = [[row for row in rows if row.model == model] for model in models]
    columns = [summary(members) if members else {} for members in by_model]
    labels = dict.fromkeys(label for column in columns for label in column)
    lines = tuple((label, *(column.get(label, "") for column in columns)) for label in labels)
    return Table(title, ("", *models), lines)


def _cell(row: Row) -> str:
    if row.message:
        return f"no transform {row.verdict}"
    value = row.dice if math.isfinite(row.dice) else row.error
    return f"{number(value) if math.isfinite(value) else ''} {row.verdict}".strip()
