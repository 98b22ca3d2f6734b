"""What came of the pairs, one row each: results.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from retreg.files.doors import replacing
from retreg_server.batch.one_pair import outcome_in
from retreg_server.batch.pairs import Pair

TABLE = "results.csv"
NUMBERS = ("agreement", "overlap", "correlation", "inverse_consistency_p95", "displacement_mean",
           "jacobian_min")  # fmt: skip
COLUMNS = (
    "name", "fixed", "moving", "verdict", "reason", "notes", "rotation_deg", "scale", "shift_x",
    "shift_y", "shift_z", "unit", *NUMBERS, "model", "transform", "seconds",
)  # fmt: skip
VERDICTS = ("error", "fail", "check", "accept")  # the worst first
Row = dict[str, Any]


def rows_of(pairs: Sequence[Pair], out: Path) -> list[Row]:
    """The rows of the pairs that are done, in their order."""
    found = [(pair, outcome_in(out / pair.name)) for pair in pairs]
    return [_row(pair, said) for pair, said in found if said.get("verdict") in VERDICTS]


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """The rows by verdict, and those of one verdict by the agreement, the lowest first."""
    return sorted(
        rows, key=lambda row: (VERDICTS.index(row["verdict"]), row["agreement"] or 0.0)
    )


def write_table(out: Path, rows: Sequence[Row]) -> None:
    """Write results.csv. Raises FileError."""
    text = StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with replacing(out / TABLE, ".csv") as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _row(pair: Pair, said: dict[str, Any]) -> Row:
    placement, quality = said.get("placement", {}), said.get("quality", {})
    unit = placement.get("unit", "")
    shift = placement.get("shift") or [None] * 3
    return {
        "name": pair.name,
        "fixed": pair.fixed.name,
        "moving": pair.moving.name,
        "verdict": said["verdict"],
        "reason": said.get("reason", ""),
        "notes": " ".join(said.get("notes", ())),
        "rotation_deg": placement.get("rotation_deg"),
        "scale": placement.get("scale"),
        **dict(zip(("shift_x", "shift_y", "shift_z"), shift, strict=True)),
        "unit": unit,
        **{name: quality.get(name, quality.get(f"{name}_{unit}")) for name in NUMBERS},
        "model": said.get("model"),
        "transform": said.get("transform"),
        "seconds": round(sum(said["seconds"].values()), 3) if "seconds" in said else None,
    }
