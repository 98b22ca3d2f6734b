"""Keypoints as Spatial Fiducials: two sets, in which the same identifier means the same place."""

from __future__ import annotations

from typing import Any

from retreg.dicom.new_object import content, decimal, new_object
from retreg.dicom.references import image_references, list_references
from retreg.dicom.registration import Pair
from retreg.dicom.source import Source
from retreg.files.dicom_fiducials import PIXEL_CENTRE, SPATIAL_FIDUCIALS, description
from retreg.geometry import Grid
from retreg.messages import Keypoints

_SERIES = 3



def fiducials_object(
    pair: Pair, moving_grid: Grid, fixed_points: Keypoints, moving_points: Keypoints
) -> Any:
    """The pydicom data set with both lists of keypoints, (n, 3) LPS mm each.

    What lies in a frame of reference is written in 3-D, photographs as columns and rows.
    """
    from pydicom.dataset import Dataset

    data = new_object(
        pair.fixed, SPATIAL_FIDUCIALS, "FID", "RetReg keypoints", _SERIES, pair.version
    )
    content(data, "KEYPOINTS", "The same places in two images")
    sets = []
    for source, grid, points in (
        (pair.fixed, pair.grid, fixed_points),
        (pair.moving, moving_grid, moving_points),
    ):
        item = Dataset()
        if source.frame_of_reference:
            item.FrameOfReferenceUID = source.frame_of_reference
        item.ReferencedImageSequence = image_references(source)
        item.FiducialSequence = [
            _fiducial(source, grid, points, n) for n in range(len(points))
        ]
        sets.append(item)
    data.FiducialSetSequence = sets
    list_references(data, (pair.fixed, pair.moving))
    return data


def _fiducial(source: Source, grid: Grid, points: Keypoints, number: int) -> Any:
    from pydicom.dataset import Dataset
    from pydicom.uid import generate_uid

    item = Dataset()
    item.FiducialIdentifier = str(number + 1)
    item.FiducialDescription = description(points.weights[number], points.inliers[number])
    item.FiducialUID = generate_uid(prefix=None)
    item.ShapeType = "POINT"
    point = points.points[number]
    if source.frame_of_reference:
        item.NumberOfContourPoints = 1
        item.ContourData = [decimal(value) for value in point]
        return item
    pixel = grid.index(point[None])[0, :2] + PIXEL_CENTRE
    place = Dataset()
    place.ReferencedImageSequence = image_references(source)
    place.GraphicData = pixel.tolist()
    item.GraphicCoordinatesDataSequence = [place]
    return item
