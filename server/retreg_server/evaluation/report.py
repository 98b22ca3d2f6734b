"""Writes the results: results.csv, results.json, results.md and index.html with pictures."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from html import escape
from pathlib import Path
from typing import IO

from retreg.errors import RetRegError
from retreg.transforms import Affine
from retreg_server.evaluation.bench import Finished, Row
from retreg_server.evaluation.gallery import save_checkerboard
from retreg_server.evaluation.summaries import accepted, failure_limit
from retreg_server.evaluation.tables import Table, models_of, pair_tables, summary_tables

COLUMNS = tuple(f.name for f in fields(Row) if f.name != "numbers")
STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em; max-width: 1400px; }
table { border-collapse: collapse; margin-bottom: 1em; }
td, th { border: 1px solid #bbb; padding: 2px 8px; text-align: right; }
td:first-child { text-align: left; }
img { max-width: 48%; height: auto; }
h3 { margin-bottom: 0.2em; }
"""


class Report:
    """Collects finished rows in a folder; what is there is usable after every row."""

    def __init__(self, folder: Path, benchmark: str, notes: Sequence[str] = ()) -> None:
        self.rows: list[Row] = []
        self._folder = folder
        self._benchmark = benchmark
        self._notes = notes
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        self._csv: IO[str] = (folder / "results.csv").open("w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._csv, COLUMNS, extrasaction="ignore")
        self._writer.writeheader()

    def add(self, finished: Finished) -> None:
        """Draw the pair, keep the row, and write its line of the CSV at once."""
        row = self._drawn(finished)
        self.rows.append(row)
        self._writer.writerow(asdict(row))
        self._csv.flush()

    def close(self) -> None:
        """Write the summaries of all rows so far."""
        self._csv.close()
        if not self.rows:
            return
        tables = summary_tables(self.rows, self._benchmark)
        texts = {
            "results.json": self._json(),
            "results.md": self._markdown([*tables, *pair_tables(self.rows)]),
            "index.html": self._html(tables),
        }
        for name, text in texts.items():
            (self._folder / name).write_text(text, encoding="utf-8")

    def _drawn(self, finished: Finished) -> Row:
        row, pair = finished.row, finished.pair
        if pair is None:
            return row
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", f"{row.benchmark_set}_{row.pair}")
        before, after = f"pictures/{stem}_before.jpg", ""
        if not any(known.before_picture == before for known in self.rows):
            save_checkerboard(self._folder / before, pair, Affine.identity())
        if finished.transform is not None:
            after = f"pictures/{stem}_{re.sub('[^A-Za-z0-9-]', '_', row.model)}.jpg"
            try:
                save_checkerboard(self._folder / after, pair, finished.transform)
            except RetRegError:  # such as a transform with infinite values
                after = ""
        return replace(row, before_picture=before, after_picture=after)

    def _json(self) -> str:
        rows = [
            {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(r).items()}
            for r in self.rows
        ]
        document = {"benchmark": self._benchmark, "notes": list(self._notes), "rows": rows}
        return json.dumps(document, indent=1, default=float)

    def _markdown(self, tables: Sequence[Table]) -> str:
        parts = [f"# Benchmark {self._benchmark}", *self._notes]
        for table in tables:
            lines = [table.header, tuple("---" for _ in table.header), *table.lines]
            rows = "\n".join(_markdown_line(line) for line in lines)
            parts.append(f"## {table.title}\n\n{rows}")
        return "\n\n".join(parts) + "\n"

    def _html(self, tables: Sequence[Table]) -> str:
        title = f"Benchmark {self._benchmark}"
        models = models_of(self.rows)
        links = " · ".join(f'<a href="#{escape(m)}">pairs of {escape(m)}</a>' for m in models)
        notes = "".join(f"<p>{escape(note)}</p>" for note in self._notes)
        body = [f"<h1>{title}</h1>{notes}<p>{links}</p>", *map(_html_table, tables)]
        for model in models:
            body.append(f'<h2 id="{escape(model)}">{escape(model)}, worst first</h2>')
            members = [row for row in self.rows if row.model == model]
            members.sort(key=lambda row: severity(row, self._benchmark), reverse=True)
            body += map(_html_pair, members)
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
            f"<style>{STYLE}</style><body>{''.join(body)}</body></html>\n"
        )


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def severity(row: Row, benchmark: str) -> float:
    """How bad a row is, for sorting: 1 is an error at the limit of failure.

    Accepted wrong pairs come first, then pairs without a transform; wrong pairs that were not
    accepted come last.
    """
    if not row.right:
        return math.inf if accepted(row) else 0.0
    if row.message:
        return 1e9
    if math.isfinite(row.dice):
        return 1 - row.dice
    return row.error / failure_limit(benchmark)


def _html_table(table: Table) -> str:
    lines = [
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>"
        for line in (table.header, *table.lines)
    ]
    return f"<h2>{escape(table.title)}</h2><table>{''.join(lines)}</table>"


def _html_pair(row: Row) -> str:
    facts = [f"set {row.benchmark_set}"]
    if math.isfinite(row.error):
        facts.append(f"error {row.error:.2f} (before {row.initial_error:.1f})")
    if math.isfinite(row.dice):
        facts.append(f"Dice {row.dice:.3f} (before {row.initial_dice:.3f})")
    facts += [text for text in (row.verdict, row.reason, row.message) if text]
    pictures = "".join(
        f'<img loading="lazy" src="{name}" alt="{when}" title="{when}"> '
        for name, when in ((row.before_picture, "before"), (row.after_picture, "after"))
        if name
    )
    return f"<h3>{escape(row.pair)}</h3><p>{escape('; '.join(facts))}</p><div>{pictures}</div>"
