"""DICOM headers, parsed with bounded work and memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from retreg.errors import FileError
from retreg.files.limits import MAX_DICOM_ELEMENT_BYTES, MAX_DICOM_READS

_DEFLATED = "1.2.840.10008.1.2.1.99"
_NEEDED = (
    "SOPInstanceUID", "SeriesInstanceUID", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel",
    "PhotometricInterpretation", "BitsAllocated", "PixelRepresentation", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "SpacingBetweenSlices", "SliceThickness",
    "RescaleSlope", "RescaleIntercept", "FrameTime", "FrameTimeVector", "CineRate",
    "RecommendedDisplayFrameRate", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip


class _Bounded(io.BufferedReader):
    """A file that never hands out more than it has, and that gives up on absurd headers.

    Asked for the 4 GB that a false element length promises, an ordinary file first takes that
    memory. Sequences of empty items cost far more memory than their bytes, hence the two limits.
    """

    def __init__(self, path: Path, largest_element: int) -> None:
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size
        self._largest_element = largest_element
        self._reads_left = MAX_DICOM_READS

    def read(self, size: int | None = -1) -> bytes:
        """As any file, but at most what is left; ValueError beyond the limits."""
        self._reads_left -= 1
        left = max(self._size - self.tell(), 0)
        count = left if size is None or size < 0 else min(size, left)
        if self._reads_left < 0 or count > self._largest_element:
            raise ValueError("a header with too many or too large elements")
        return super().read(count)


def read_header(path: Path) -> Any:
    """The pydicom data set with what the image needs, without pixels and without the patient.

    Raises FileError for deflated files, and what pydicom raises on damaged ones.
    """
    import pydicom

    _refuse_deflated(path)
    with _Bounded(path, MAX_DICOM_ELEMENT_BYTES) as file:
        return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_NEEDED))


def read_with_pixels(path: Path) -> Any:
    """The whole pydicom data set of a file whose header was accepted by read_header."""
    import pydicom

    with _Bounded(path, path.stat().st_size) as file:
        return pydicom.dcmread(file)


def _refuse_deflated(path: Path) -> None:
    """pydicom inflates a deflated data set as a whole, before anything of it can be checked."""
    from pydicom.filereader import read_dataset, read_preamble

    with _Bounded(path, MAX_DICOM_ELEMENT_BYTES) as file:
        read_preamble(file, False)
        meta = read_dataset(
            file,
            is_implicit_VR=False,
            is_little_endian=True,
            stop_when=lambda tag, _vr, _length: tag.group != 2,
        )
    if str(meta.get("TransferSyntaxUID", "")) == _DEFLATED:
        raise FileError(
            f"{path.name} is a deflated DICOM file, which is not accepted; export it uncompressed "
            "or with JPEG compression."
        )
