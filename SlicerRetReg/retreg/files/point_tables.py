"""Points to be carried from one image to the other: a file goes out as it came, with new places.

Tables (.csv, .tsv, .txt) have columns x, y and, but for pictures, z, in the world of the image (LPS
mm, or pixels without a scale) as antsApplyTransformsToPoints takes them; lists (.json) are [[x, y],
…] or {"points": …}; .mrk.json and .fcsv are Slicer's. Everything else in a file is kept.
"""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from retreg.errors import FileError
from retreg.files.doors import existing_file, reading, replacing
from retreg.files.limits import MAX_MARKUPS_BYTES
from retreg.files.markups import coordinate_signs
from retreg.files.names import usable_name

_IN_THE_PLANE = 1e-3  # by which z may differ from 0 where a file has no room for it
_AXES = "xyz"
_DELIMITERS = ",;\t "


class PointFile(Protocol):
    """The content of a file with points."""

    @property
    def points(self) -> np.ndarray:
        """(n, 3) LPS mm."""

    def moved(self, points: np.ndarray) -> str:
        """The text of the file with other points (n, 3), everything else kept."""


def read_points(path: str | Path) -> PointFile:
    """Read a table, a list, or a file of Slicer. Raises FileError."""
    path = existing_file(usable_name(path), MAX_MARKUPS_BYTES)
    with reading(path.name, "a list of points"):
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return _json_points(json.loads(text), path.name)
        return _table(text, path.name)


def write_points(path: str | Path, file: PointFile, points: np.ndarray) -> None:
    """Write the file with other points (n, 3). Raises FileError."""
    path = usable_name(path)
    text = file.moved(points)
    with replacing(path, path.suffix) as temporary:
        temporary.write_text(text, encoding="utf-8")


@dataclass(frozen=True, eq=False)
class _Json:
    """content: parsed. places: the lists of numbers in it that are points. signs: (n, 3) to LPS."""

    content: Any
    points: np.ndarray
    signs: np.ndarray

    def moved(self, points: np.ndarray) -> str:
        content = copy.deepcopy(self.content)
        places = [place for place, _ in _places(content, "")]
        for place, point in zip(places, points * self.signs, strict=True):
            place[:] = _without_z(point, len(place))
        return json.dumps(content, indent=1) + "\n"


def _json_points(content: Any, name: str) -> _Json:
    found = list(_places(content, name))
    if not found:
        raise FileError(f"{name} holds no points; [[x, y, z], …] or a file of Slicer was expected.")
    points = np.array([[*map(float, place), 0.0][:3] for place, _ in found])
    signs = np.array([signs for _, signs in found])
    return _Json(content, _finite(points * signs, name), signs)


def _places(content: Any, name: str) -> Iterator[tuple[list[float], tuple[int, ...]]]:
    """Each list of two or three numbers that is a point, and the signs that make it LPS."""
    if isinstance(content, dict) and "markups" in content:
        for markup in content["markups"]:
            signs = coordinate_signs(markup.get("coordinateSystem", "LPS"), name)
            for point in markup["controlPoints"]:
                if point.get("positionStatus", "defined") == "defined":
                    yield point["position"], signs
        return
    for place in content["points"] if isinstance(content, dict) else content:
        if len(place) not in (2, 3):
            raise FileError(f"{name} has points of {len(place)} numbers; 2 or 3 were expected.")
        yield place, (1, 1, 1)


@dataclass(frozen=True, eq=False)
class _Table:
    """rows: all cells of the file. numbers: which rows are points. columns: of x, y and perhaps z.

    signs: (3,) to LPS.
    """

    rows: list[list[str]]
    numbers: list[int]
    columns: list[int]
    delimiter: str
    signs: np.ndarray
    points: np.ndarray

    def moved(self, points: np.ndarray) -> str:
        rows = [list(row) for row in self.rows]
        for number, point in zip(self.numbers, points * self.signs, strict=True):
            for column, value in zip(
                self.columns, _without_z(point, len(self.columns)), strict=True
            ):
                rows[number][column] = repr(round(value, 9))
        out = StringIO()
        csv.writer(out, delimiter=self.delimiter, lineterminator="\n").writerows(rows)
        return out.getvalue()


def _table(text: str, name: str) -> _Table:
    lines = text.splitlines()
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    delimiter = next((sign for sign in _DELIMITERS if sign in first.strip()), ",")
    rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter == " "))
    is_slicers = name.lower().endswith(".fcsv")
    columns = [1, 2, 3] if is_slicers else _columns(first.strip(), delimiter, name)
    signs = coordinate_signs(_system(lines) if is_slicers else "LPS", name)
    filled = [n for n, row in enumerate(rows) if any(row) and not row[0].startswith("#")]
    if not is_slicers and _number(rows[filled[0]][columns[0]]) is None:
        filled = filled[1:]  # without the heads of the columns
    points = np.zeros((len(filled), 3))
    for place, n in enumerate(filled):
        points[place, : len(columns)] = [float(rows[n][column]) for column in columns]
    points = _finite(points * signs, name)
    return _Table(rows, filled, columns, delimiter, np.array(signs), points)


def _columns(head: str, delimiter: str, name: str) -> list[int]:
    """Where x, y and z stand: by the heads of the columns, or in front where there are none."""
    cells = [cell.strip().strip('"').lower() for cell in head.split(delimiter)]
    if all(_number(cell) is not None for cell in cells):
        return list(range(min(len(cells), 3))) if len(cells) >= 2 else _no_columns(name)
    found = [cells.index(axis) for axis in _AXES if axis in cells]
    named = "".join(cells[n] for n in found)
    return found if named in ("xy", "xyz") else _no_columns(name)


def _no_columns(name: str) -> list[int]:
    raise FileError(f"{name} has no columns x and y; heads such as x,y,z,label were expected.")


def _system(lines: list[str]) -> str:
    """The coordinate system that a .fcsv file names; RAS where it names none."""
    named = [line.partition("=")[2].strip(" ,") for line in lines if "CoordinateSystem" in line]
    return named[0] if named else "RAS"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _finite(points: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(points).all():
        raise FileError(f"{name} has points that are not finite numbers; remove them.")
    return points


def _without_z(point: np.ndarray, count: int) -> list[float]:
    if count == 2 and abs(point[2]) > _IN_THE_PLANE:
        raise FileError(
            f"A point leaves the plane of its picture by {abs(point[2]):.3g} mm, and the file has "
            "no column z for that; add one."
        )
    return [float(value) for value in point[:count]]
