"""Spatial Fiducials files, read into keypoints (PS3.3 C.21.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retreg.errors import FileError
from retreg.files.dicom_header import read_object
from retreg.files.dicom_registration import ImageSet, images_of
from retreg.files.doors import existing_file, reading
from retreg.files.limits import MAX_MARKUPS_BYTES
from retreg.files.names import usable_name
from retreg.geometry import Grid
from retreg.messages import Keypoints

SPATIAL_FIDUCIALS = "1.2.840.10008.5.1.4.1.1.66.2"
_OUTLIER = "outlier"
_WEIGHT = re.compile(r"\bweight=([0-9.eE+-]+)")
PIXEL_CENTRE = 0.5  # of coordinates that count from the corner of the first pixel (C.10.5.1.2)


def description(weight: float, is_inlier: bool) -> str:
    """What is written beside a point: its weight, and whether it contradicts the transform."""
    return f"weight={weight:.9g}" + ("" if is_inlier else f" {_OUTLIER}")


@dataclass(frozen=True, eq=False)
class FiducialSet:
    """Points of one image. identifiers: equal ones of two sets are the same place.

    in_pixels: whether points are columns and rows (pixel centres at integers) and not LPS mm.
    """

    images: ImageSet
    identifiers: tuple[str, ...]
    points: Keypoints
    in_pixels: bool

    def placed(self, grid: Grid) -> Keypoints:
        """The points in LPS mm; grid is that of the image to which they belong."""
        if not self.in_pixels:
            return self.points
        return Keypoints(grid.world(self.points.points), self.points.weights, self.points.inliers)


def read_fiducials(path: str | Path) -> tuple[FiducialSet, ...]:
    """The sets in a file. Raises FileError when it is damaged or holds other shapes than points."""
    path = existing_file(usable_name(path), MAX_MARKUPS_BYTES)
    with reading(path.name, "DICOM fiducials"):
        return fiducials_of(read_object(path), path.name)


def fiducials_of(data: Any, name: str = "The object") -> tuple[FiducialSet, ...]:
    """As read_fiducials, of a pydicom data set that sentences call by its name."""
    if str(data.get("SOPClassUID", "")) != SPATIAL_FIDUCIALS:
        raise FileError(
            f"{name} is a DICOM object of another kind; Spatial Fiducials were expected."
        )
    return tuple(_set(item, name) for item in data.FiducialSetSequence)


def in_common(first: FiducialSet, second: FiducialSet) -> tuple[FiducialSet, FiducialSet]:
    """The points whose identifiers both sets have, in the order of the first."""
    shared = [name for name in first.identifiers if name in set(second.identifiers)]
    chosen = []
    for each in (first, second):
        rows = [each.identifiers.index(name) for name in shared]
        points = each.points
        kept = Keypoints(points.points[rows], points.weights[rows], points.inliers[rows])
        chosen.append(FiducialSet(each.images, tuple(shared), kept, each.in_pixels))
    return chosen[0], chosen[1]


def _set(item: Any, name: str) -> FiducialSet:
    fiducials = list(item.FiducialSequence)
    rows = [_point(each, name) for each in fiducials]
    if len({len(row) for row in rows}) != 1:
        raise FileError(f"{name} mixes points in space with points of pictures; one was expected.")
    points = np.zeros((len(rows), 3))
    points[:, : len(rows[0])] = rows
    in_pixels = len(rows[0]) == 2
    if in_pixels:
        points[:, :2] -= PIXEL_CENTRE
    texts = [str(each.get("FiducialDescription") or "") for each in fiducials]
    found = [_WEIGHT.search(text) for text in texts]
    weights = np.array([float(match[1]) if match else 1.0 for match in found])
    inliers = np.array([_OUTLIER not in text.split() for text in texts])
    identifiers = tuple(str(each.get("FiducialIdentifier", "")) for each in fiducials)
    if len(set(identifiers)) != len(identifiers):
        raise FileError(f"{name} gives several points of a set the same identifier.")
    return FiducialSet(images_of(item), identifiers, Keypoints(points, weights, inliers), in_pixels)


def _point(fiducial: Any, name: str) -> list[float]:
    if str(fiducial.get("ShapeType", "")) != "POINT":
        raise FileError(f"{name} holds other shapes than points; export the points alone.")
    values = fiducial.get("ContourData")
    if values is None:
        values = fiducial.GraphicCoordinatesDataSequence[0].GraphicData
    if len(values) not in (2, 3):
        raise FileError(f"{name} holds a point of {len(values)} numbers; 2 or 3 were expected.")
    return [float(value) for value in values]
