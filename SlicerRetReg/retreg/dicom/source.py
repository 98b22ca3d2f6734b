"""The DICOM objects that an image was read from: what new objects copy from and refer to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retreg.errors import FileError
from retreg.files.dicom import image_of
from retreg.files.dicom_geometry import Frame
from retreg.files.dicom_mosaic import is_mosaic
from retreg.files.dicom_registration import ImageSet
from retreg.files.dicom_series import Slice, main_series, slice_in, slices_in
from retreg.files.dicom_stack import stacked, unplaced_grid
from retreg.files.doors import reading
from retreg.files.formats import Format, recognised
from retreg.files.names import usable_name
from retreg.geometry import Grid
from retreg.image import Image

_NEEDED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


@dataclass(frozen=True, eq=False)
class Source:
    """headers: pydicom data sets of one series, without pixels. frames: the first one of each, or
    all of the only one. frame: the number, from 1, of the picture that was taken from a file of
    several; None for the whole."""

    headers: tuple[Any, ...]
    frames: tuple[Frame, ...]
    frame: int | None = None

    @property
    def header(self) -> Any:
        """That of the first file; what concerns patient, study and series is the same in all."""
        return self.headers[0]

    @property
    def is_placed(self) -> bool:
        """Whether the image lies somewhere in a body, as scans do and photographs do not."""
        return self.frames[0].axes is not None or is_mosaic(self.header)

    @property
    def frame_of_reference(self) -> str:
        """The UID of the space in which the image lies; empty for photographs and without one."""
        uid = str(self.header.get("FrameOfReferenceUID") or "")
        return uid if self.is_placed else ""

    def grid(self) -> Grid:
        """Where the voxels lie, LPS mm; of a picture without a place its pixels times spacing.

        Raises FileError for what is no regular stack, or a mosaic.
        """
        header = self.header
        if is_mosaic(header):
            raise FileError("A mosaic was given; the volumes of a series were expected.")
        columns, rows = int(header.Columns), int(header.Rows)
        if not self.is_placed:
            return unplaced_grid(self.frames[0], 1, columns, rows)
        return stacked(self.frames, columns, rows)[1]

    @property
    def images(self) -> ImageSet:
        """Its instances and its space."""
        uids = (str(header.SOPInstanceUID) for header in self.headers)
        return ImageSet(self.frame_of_reference, frozenset(uids))


def source_of(path: str | Path, frame: int | None = None) -> Source:
    """What stands behind the image that read_image makes of the same path and frame.

    Raises FileError when that is no DICOM, or lacks the UIDs by which objects refer to it.
    """
    path = usable_name(path)
    with reading(path.name, Format.DICOM.value):
        if path.is_dir():
            slices = main_series(slices_in(path, is_whole=True), "the folder")[0]
        else:
            one = slice_in(path, is_whole=True) if recognised(path) is Format.DICOM else None
            if one is None:
                raise FileError(
                    f"{path.name} is no DICOM image, so no DICOM objects can refer to it; give "
                    "DICOM files or series for both images, or leave --dicom out."
                )
            slices = [one]
        return source_from(slices, path.name, frame)


def source_from(slices: Sequence[Slice], name: str, frame: int | None = None) -> Source:
    """The source with these slices, sorted by place. Raises FileError as source_of."""
    missing = [tag for tag in _NEEDED if any(not each.header.get(tag) for each in slices)]
    if missing:
        raise FileError(
            f"{name} has no {missing[0]}, so no DICOM objects can refer to it; export it again "
            "from where it is archived."
        )
    slices = sorted(slices, key=lambda each: _height(each.frame))
    headers = tuple(each.header for each in slices)
    frames = slices[0].frames if len(slices) == 1 else [each.frame for each in slices]
    return Source(headers, tuple(frames), frame)


def image_with_source(slices: Iterable[Slice]) -> tuple[Image, Source]:
    """The image of a series, of whose headers the pixels are dropped, and its source.

    Raises FileError or GeometryError as read_image and source_of.
    """
    with reading("The series", "a DICOM series"):
        chosen, notes = main_series(slices, "the series")
        image = image_of(chosen, notes, "the series")
        for each in chosen:
            each.header.pop("PixelData", None)
        return image, source_from(chosen, "The series")


def _height(frame: Frame) -> float:
    if frame.axes is None or frame.position is None:
        return 0.0
    return float(frame.position @ np.cross(frame.axes[:, 0], frame.axes[:, 1]))


def refuse_unusable_pair(fixed: Source, moving: Source) -> None:
    """Raise FileError when no object can hold what two images have in common.

    Two photographs or two scans; of one patient; scans in a frame of reference each.
    """
    if fixed.is_placed != moving.is_placed:
        raise FileError(
            "One image has a place in the body and the other one has none, so no DICOM object can "
            "relate them."
        )
    for name in ("PatientID", "PatientBirthDate"):
        said = {str(s.header.get(name) or "").strip() for s in (fixed, moving)} - {""}
        if len(said) > 1:
            raise FileError(
                "The two images say that they are of different patients, and a DICOM object "
                "belongs to one, so none can be made."
            )
    for role, source in (("fixed", fixed), ("moving", moving)):
        if source.is_placed and not source.frame_of_reference:
            raise FileError(
                f"The {role} image names no frame of reference, so no DICOM object can say what "
                "lies where in it; export the series again from where it is archived."
            )
