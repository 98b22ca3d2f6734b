"""Tables and plots of the keypoint measurements: numbers.csv, keypoints.md, index.html, *.png."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from html import escape
from pathlib import Path

import numpy as np

from retreg_server.evaluation.keypoints import Measured
from retreg_server.evaluation.line_plot import line_plot

TITLES = {
    "equivariance-rotation": "Equivariance error by rotation in degrees",
    "equivariance-scale": "Equivariance error by scale",
    "contrast-or-person": "Keypoint distance after a rigid fit",
    "error-by-angle": "Error by rotation",
    "error-by-pair": "Error of the affine by pair of contrasts and rotation",
    "error-by-smoothing": "Error of the spline by smoothing",
    "error-by-count": "Error of the affine by number of keypoints",
    "overlap-by-angle": "Dice by rotation",
    "overlap-by-pair": "Dice of the affine by rotation",
    "overlap-by-smoothing": "Dice of the spline by smoothing",
    "dice-by-count": "Dice of the affine by number of keypoints",
    "failures": "Pairs without a result",
}


def write_keypoint_report(
    folder: Path, model: str, unit: str, numbers: Sequence[Measured]
) -> None:
    """Write what was measured of the keypoints of a model; unit: of the distances, mm or pixels."""
    heading = f"Keypoints of {model}", f"Medians over images or pairs; distances in {unit}."
    labels = {
        figure: "share of 1" if title.startswith(("Dice", "Pairs")) else unit
        for figure, title in TITLES.items()
    }
    write_figures(folder, heading, TITLES, labels, numbers)


def write_figures(
    folder: Path,
    heading: tuple[str, str],
    titles: Mapping[str, str],
    labels: Mapping[str, str],
    numbers: Sequence[Measured],
) -> None:
    """Write everything that was measured, and medians over images or pairs as tables and plots.

    heading: a title and a sentence. titles, labels: by figure, the labels of the vertical axes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "numbers.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Measured)])
        writer.writeheader()
        writer.writerows(asdict(number) for number in numbers)
    markdown = [f"# {heading[0]}\n\n{heading[1]}"]
    page = [f"<h1>{escape(heading[0])}</h1><p>{escape(heading[1])}</p>"]
    for figure, title in titles.items():
        members = [number for number in numbers if number.figure == figure]
        if not members:
            continue
        places, table = medians(members)
        line_plot(folder / f"{figure}.png", title, places, table, labels[figure])
        rows = [["", *places]] + [
            [series, *(f"{line[x]:.3g}" if x in line else "" for x in places)]
            for series, line in table.items()
        ]
        markdown.append(f"## {title}\n\n{_markdown(rows)}")
        page.append(f"<h2>{escape(title)}</h2>{_html(rows)}<img src='{figure}.png' alt=''>")
    (folder / "keypoints.md").write_text("\n\n".join(markdown) + "\n", encoding="utf-8")
    (folder / "index.html").write_text(
        f"<!doctype html><meta charset='utf-8'><title>{escape(heading[0])}</title>"
        "<style>body{font:15px sans-serif;margin:2em}td{padding:2px 8px;border:1px solid #bbb}"
        "table{border-collapse:collapse}</style>" + "".join(page),
        encoding="utf-8",
    )


def medians(numbers: Sequence[Measured]) -> tuple[list[str], dict[str, dict[str, float]]]:
    """The places of a figure in their order, and the median value by series and place."""
    places = sorted(dict.fromkeys(number.x for number in numbers), key=_position)
    table: dict[str, dict[str, float]] = {}
    for number in numbers:
        table.setdefault(number.series, {})
    for series, line in table.items():
        for x in places:
            values = [n.value for n in numbers if n.series == series and n.x == x]
            if values:
                line[x] = float(np.median(values))
    return places, table


def _position(place: str) -> tuple[float, str]:
    """Numbers in their order (the first one of a range), then words."""
    try:
        return float(place.split("-")[0]), place
    except ValueError:
        return -1.0, place


def _markdown(rows: list[list[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _html(rows: list[list[str]]) -> str:
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table>{body}</table>"
