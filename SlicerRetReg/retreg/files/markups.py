"""Slicer's point lists: .mrk.json out and in, the older .fcsv in.

The weight of a point stands in its description, as "weight=0.25": a field that Slicer shows,
keeps and saves again. Its inlier state is Slicer's "selected".
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retreg.errors import FileError
from retreg.files.doors import existing_file, reading, replacing
from retreg.files.limits import MAX_MARKUPS_BYTES
from retreg.files.names import usable_name
from retreg.messages import Keypoints

_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/"
    "Schema/markups-schema-v1.0.3.json#"
)
_WEIGHT = re.compile(r"\bweight=([0-9.eE+-]+)")
_LPS_FROM = {"LPS": (1, 1, 1), "RAS": (-1, -1, 1), "1": (1, 1, 1), "0": (-1, -1, 1)}
_IJK = ("IJK", "2")


class _Point(NamedTuple):
    position: tuple[float, ...]
    weight: float
    inlier: bool


def write_markups(path: str | Path, keypoints: Keypoints) -> None:
    """Write a point list for Slicer (.mrk.json), in LPS mm, labelled "1" to "n" in order.

    Raises FileError when the file cannot be written.
    """
    path = usable_name(path)
    points = zip(keypoints.points, keypoints.weights, keypoints.inliers, strict=True)
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%d",
        "lastUsedControlPointNumber": len(keypoints),
        "controlPoints": [
            _control_point(str(n), position.tolist(), float(weight), bool(inlier))
            for n, (position, weight, inlier) in enumerate(points, start=1)
        ],
    }
    with replacing(path, ".mrk.json") as temporary:
        # Without indents, which would take a hundred times as long.
        text = json.dumps({"@schema": _SCHEMA, "markups": [markup]})
        temporary.write_text(text, encoding="utf-8")


def read_markups(path: str | Path) -> Keypoints:
    """Read a point list of Slicer, .mrk.json or .fcsv, in LPS or RAS; a missing weight is 1.

    Points that are not placed are left out. Raises FileError or InputError.
    """
    path = existing_file(usable_name(path), MAX_MARKUPS_BYTES)
    with reading(path.name, "a point list of Slicer"):
        text = path.read_text(encoding="utf-8")
        parse = _from_fcsv if path.suffix.lower() == ".fcsv" else _from_json
        points = list(parse(text, path.name))
        return Keypoints(
            np.array([p.position for p in points], dtype=np.float64).reshape(-1, 3),
            np.array([p.weight for p in points]),
            np.array([p.inlier for p in points], dtype=bool),
        )


def _control_point(
    label: str, position: list[float], weight: float, inlier: bool
) -> dict[str, Any]:
    return {
        "id": label,
        "label": label,
        "description": f"weight={weight!r}",
        "associatedNodeID": "",
        "position": position,
        "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
        "selected": inlier,
        "locked": False,
        "visibility": True,
        "positionStatus": "defined",
    }


def _from_json(text: str, name: str) -> Iterable[_Point]:
    markups = json.loads(text)["markups"]
    if len(markups) != 1:
        raise FileError(f"{name} holds {len(markups)} point lists; save one list per file.")
    signs = coordinate_signs(markups[0].get("coordinateSystem", "LPS"), name)
    for point in markups[0]["controlPoints"]:
        if point.get("positionStatus", "defined") == "defined":
            yield _point(signs, point["position"], point)


def _from_fcsv(text: str, name: str) -> Iterable[_Point]:
    signs = coordinate_signs("RAS", name)
    columns: list[str] = []
    for row in csv.reader(text.splitlines()):
        line = ",".join(row)
        if line.startswith("# CoordinateSystem"):
            signs = coordinate_signs(line.partition("=")[2].strip(" ,"), name)
        elif line.startswith("# columns"):
            columns = line.partition("=")[2].strip().split(",")
        elif row and not line.startswith("#"):
            point = dict(zip(columns, row, strict=False))
            position = [float(point[axis]) for axis in "xyz"]
            selected = {"selected": point.get("sel", "1") != "0"}
            yield _point(signs, position, {"description": point.get("desc", ""), **selected})


def coordinate_signs(system: object, name: str) -> tuple[int, ...]:
    """What turns a coordinate system, by its name or its number in .fcsv, into LPS."""
    if system in _LPS_FROM:
        return _LPS_FROM[str(system)]
    kind = "IJK, the voxels of an image that the file does not name" if system in _IJK else (
        "an unknown coordinate system"
    )
    raise FileError(
        f"{name} gives its points in {kind}; LPS or RAS was expected, so save the list again from "
        "Slicer, which writes LPS."
    )


def _point(signs: tuple[int, ...], position: Any, entry: Mapping[str, Any]) -> _Point:
    if len(position) != 3:
        raise ValueError("three coordinates expected")
    lps = tuple(sign * float(value) for sign, value in zip(signs, position, strict=True))
    weight = _WEIGHT.search(str(entry.get("description", "")))
    return _Point(lps, float(weight[1]) if weight else 1.0, bool(entry.get("selected", True)))
