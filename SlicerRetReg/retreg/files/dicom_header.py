"""DICOM headers, parsed with bounded work and memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from retreg.errors import FileError
from retreg.files.formats import DICOM_MAGIC
from retreg.files.limits import MAX_DICOM_ELEMENT_BYTES, MAX_DICOM_READS

MEANINGS = {
    "SeriesNumber": "series number",
    "EchoTime": "echo time", "EffectiveEchoTime": "echo time", "EchoNumbers": "echo number",
    "InversionTime": "inversion time", "FlipAngle": "flip angle",
    "RepetitionTime": "repetition time",
    "ImageType": "image type (as magnitude and phase)",
    "FrameType": "frame type (as magnitude and phase)",
    "ComplexImageComponent": "component (as magnitude and phase)",
    "DiffusionBValue": "b-value", "DiffusionGradientOrientation": "diffusion direction",
    "TemporalPositionIdentifier": "time point", "TemporalPositionIndex": "time point",
    "TriggerTime": "trigger time", "NominalCardiacTriggerDelayTime": "trigger time",
    "FrameReferenceTime": "time of the frame",
    "AcquisitionNumber": "acquisition number", "AcquisitionTime": "time of acquisition",
    "FrameAcquisitionDateTime": "time of acquisition", "ContrastBolusAgent": "contrast agent",
    "KVP": "tube voltage", "ConvolutionKernel": "reconstruction kernel",
    "SliceLocation": "slice location", "InstanceNumber": "instance number",
}  # fmt: skip
"""By which slices at one place can differ, and how a sentence calls it."""
SUBJECT = (
    "PatientID", "PatientName", "PatientBirthDate", "ImageLaterality", "Laterality",
    "FrameLaterality", "RelativeImagePositionCodeSequence", "BodyPartExamined",
)  # fmt: skip
"""Whom and what an image shows; for comparison only."""
_DEFLATED = "1.2.840.10008.1.2.1.99"
_NEEDED = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Modality", "ImageType",
    "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "PixelSpacing", "PixelAspectRatio",
    "ImagePositionPatient", "ImageOrientationPatient", "SpacingBetweenSlices", "SliceThickness",
    "GridFrameOffsetVector", "RescaleSlope", "RescaleIntercept",
    "FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    *MEANINGS, *SUBJECT, 0x00190010, 0x0019100A,
)  # fmt: skip


class _Bounded(io.BufferedReader):
    """A file that never hands out more than it has, and that gives up on absurd headers.

    Asked for the 4 GB that a false element length promises, an ordinary file first takes that
    memory. Sequences of empty items cost far more memory than their bytes, hence the two limits.
    Where the preamble was left out but not the letters after it, the file begins after these.
    """

    def __init__(self, path: Path, largest_element: int) -> None:
        super().__init__(io.FileIO(path))
        self._start = len(DICOM_MAGIC) if super().read(len(DICOM_MAGIC)) == DICOM_MAGIC else 0
        self.seek(0)
        self._size = path.stat().st_size - self._start
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

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As any file."""
        start = self._start if whence == io.SEEK_SET else 0
        return super().seek(offset + start, whence) - self._start

    def tell(self) -> int:
        """As any file."""
        return super().tell() - self._start


def read_header(path: Path, is_whole: bool = False) -> Any:
    """The pydicom data set with what the image needs, without pixels; is_whole: everything else.

    Files without preamble or without meta information are read, too. Raises FileError for
    deflated files, and what pydicom raises on damaged ones.
    """
    import pydicom

    _refuse_deflated_file(path)
    tags = None if is_whole else list(_NEEDED)
    with _Bounded(path, MAX_DICOM_ELEMENT_BYTES) as file:
        return _with_syntax(
            pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags, force=True)
        )


def read_with_pixels(path: Path) -> Any:
    """The whole pydicom data set of a file whose header was accepted by read_header."""
    import pydicom

    with _Bounded(path, path.stat().st_size) as file:
        return _with_syntax(pydicom.dcmread(file, force=True))


def read_object(path: Path) -> Any:
    """The whole pydicom data set of a file that holds no image, such as a registration.

    Raises FileError for deflated files, and what pydicom raises on damaged ones.
    """
    _refuse_deflated_file(path)
    return read_with_pixels(path)


def _with_syntax(header: Any) -> Any:
    """The data set, with the transfer syntax by which a file without one was read."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" not in header.file_meta:
        is_implicit, is_little = header.original_encoding
        explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
    return header


def _refuse_deflated_file(path: Path) -> None:
    """pydicom inflates a deflated data set as a whole, before anything of it can be checked."""
    from pydicom.filereader import read_dataset, read_preamble

    with _Bounded(path, MAX_DICOM_ELEMENT_BYTES) as file:
        read_preamble(file, True)
        meta = read_dataset(
            file,
            is_implicit_VR=False,
            is_little_endian=True,
            stop_when=lambda tag, _vr, _length: tag.group != 2,
        )
    refuse_deflated(path.name, meta)


def refuse_deflated(name: str, meta: Any) -> None:
    """Raise FileError when the meta information says that the data set is deflated."""
    if str(meta.get("TransferSyntaxUID", "")) == _DEFLATED:
        raise FileError(
            f"{name} is a deflated DICOM file, which is not accepted; export it uncompressed "
            "or with JPEG compression."
        )
