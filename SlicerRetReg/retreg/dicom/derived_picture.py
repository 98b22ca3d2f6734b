"""The moving picture on the pixels of the fixed one, as an ophthalmic photograph."""

from __future__ import annotations

from typing import Any

import numpy as np

from retreg.dicom.copied import BY_MODALITY, LOOK, copy
from retreg.dicom.derived import Words
from retreg.dicom.new_object import code, decimal, new_object, side_of
from retreg.dicom.references import image_references
from retreg.dicom.registration import Pair
from retreg.dicom.source import Source
from retreg.errors import FileError
from retreg.files.dicom_about import content_of
from retreg.image import Image

_SERIES = 1
_OP_8_BIT = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
_OP_16_BIT = "1.2.840.10008.5.1.4.1.1.77.1.5.2"
_FRAME_TIME_MS = 700  # of two frames that alternate
_MAY_BE_EMPTY = (
    "IlluminationTypeCodeSequence", "LightPathFilterTypeStackCodeSequence",
    "ImagePathFilterTypeStackCodeSequence", "LensesCodeSequence", "RefractiveStateSequence",
    "AcquisitionContextSequence",
)  # fmt: skip
_MAY_BE_UNKNOWN = (
    "DetectorType", "EmmetropicMagnification", "IntraOcularPressure", "HorizontalFieldOfView",
    "PupilDilated", "PatientEyeMovementCommanded",
)  # fmt: skip


def photograph(pair: Pair, frames: np.ndarray, words: Words, number: int = 1) -> Any:
    """A pydicom data set of pictures (channels, frames, j, i) on the pixels of the fixed one.

    Two frames alternate when they are played, to see by blinking what differs. number: of the
    instance in its series.
    """
    channels, count = frames.shape[:2]
    sop_class = _OP_8_BIT if frames.dtype == np.uint8 else _OP_16_BIT
    data = new_object(pair.fixed, sop_class, "OP", words.title, _SERIES, pair.version)
    data.InstanceNumber = number
    _say_how_taken(data, pair)
    data.ImageType = ["DERIVED", "PRIMARY", "RESAMPLED"]
    data.DerivationDescription = words.derivation
    data.DerivationCodeSequence = [code("113085", "DCM", "Spatial resampling")]
    data.SourceImageSequence = image_references(pair.moving)
    for item in data.SourceImageSequence:
        item.PurposeOfReferenceCodeSequence = [
            code("121322", "DCM", "Source image for image processing operation")
        ]
    data.FrameIncrementPointer, data.FrameTime = 0x00181063, _FRAME_TIME_MS if count > 1 else 0
    spacing = pair.fixed.header.get("PixelSpacing")
    if spacing is not None:
        data.PixelSpacing = [decimal(value) for value in spacing]
    data.NumberOfFrames, data.SamplesPerPixel = count, channels
    data.Rows, data.Columns = frames.shape[2:]
    bits = 8 * frames.dtype.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    used = max(int(source.header.BitsStored) for source in (pair.fixed, pair.moving))
    if used < bits and "WindowWidth" not in data:  # dark otherwise, as all bits must be stored
        data.WindowCenter, data.WindowWidth = 2 ** (used - 1), 2**used
    data.PixelRepresentation = 0
    if channels == 3:
        data.PhotometricInterpretation, data.PlanarConfiguration = "RGB", 0
    else:
        data.PhotometricInterpretation, data.PresentationLUTShape = "MONOCHROME2", "IDENTITY"
    words_of_pixels = np.moveaxis(frames, 0, -1).astype(frames.dtype.newbyteorder("<"))
    content_bytes = words_of_pixels.tobytes()
    data.PixelData = content_bytes + b"\0" * (len(content_bytes) % 2)
    return data


def brighter_is_more(pixels: np.ndarray, source: Source) -> np.ndarray:
    """The pixels of a photograph, turned round where its files say that 0 is white.

    An ophthalmic photograph has no other way to say so.
    """
    if source.header.PhotometricInterpretation != "MONOCHROME1":
        return pixels
    return (2 ** int(source.header.BitsStored) - 1 - pixels).astype(pixels.dtype)


def refuse_other_pictures(image: Image, fixed: Source, moving: Source) -> None:
    """Raise FileError for what an ophthalmic photograph cannot hold."""
    if not image.is_picture or any(
        content_of(source.header, False) not in ("", "photograph") for source in (fixed, moving)
    ):
        raise FileError(
            "The images have no place in a body but are no photographs either; export the scans "
            "with their positions."
        )
    if not (side_of(moving.header) or side_of(fixed.header)):
        raise FileError(
            "Neither photograph says which eye it shows (ImageLaterality), as an ophthalmic "
            "photograph must; export them again with it."
        )
    dtype = image.array.dtype
    if dtype != np.uint8 and (dtype != np.uint16 or len(image.array) != 1):
        raise FileError(
            "A registered photograph can be written in 8 bits, or grey in 16 bits, without a sign; "
            f"pixels of the type {dtype} were given."
        )


def _say_how_taken(data: Any, pair: Pair) -> None:
    """What the moving picture says of camera and eye; what is missing is said to be unknown."""
    from pydicom.uid import generate_uid

    header = pair.moving.header
    for name in _MAY_BE_EMPTY:
        setattr(data, name, [])
    for name in _MAY_BE_UNKNOWN:
        setattr(data, name, None)
    copy(data, header, (*LOOK, *BY_MODALITY["OP"]))
    data.PatientOrientation = None
    data.SynchronizationFrameOfReferenceUID = generate_uid(prefix=None)
    data.SynchronizationTrigger, data.AcquisitionTimeSynchronized = "NO TRIGGER", "N"
    data.pop("Laterality", None)  # that of the image stands for it
    data.ImageLaterality = side_of(pair.moving.header) or side_of(pair.fixed.header)
    data.BurnedInAnnotation = data.get("BurnedInAnnotation") or "NO"
    data.LossyImageCompression = data.get("LossyImageCompression") or "00"
    if not data.get("AnatomicRegionSequence"):
        data.AnatomicRegionSequence = [code("T-AA000", "SRT", "Eye")]
    if not data.get("AcquisitionDeviceTypeCodeSequence"):
        data.AcquisitionDeviceTypeCodeSequence = [code("409898007", "SCT", "Fundus Camera")]
