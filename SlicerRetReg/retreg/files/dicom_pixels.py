"""The pixels of DICOM files, decoded and rescaled, with the sizes checked before."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from retreg.errors import FileError
from retreg.files.dicom_geometry import Frame
from retreg.files.dicom_series import Slice
from retreg.files.dicom_values import low_bits, padding_of, rescaled, without_drawings
from retreg.files.formats import Format
from retreg.files.limits import refuse_large_volume
from retreg.files.volumes import channels_first, read_itk

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_STORAGE = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelData",
)  # fmt: skip
_LITTLE_ENDIAN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
_RLE = "1.2.840.10008.1.2.5"
_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_JPEG_PREFIX = "1.2.840.10008.1.2.4."
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # JPEG and JPEG-LS


def refuse_large_header(name: str, header: Any) -> None:
    """Raise FileError when the pixels that the header declares are too many, of whatever type."""
    counts = (header.Rows, header.Columns, header.get("NumberOfFrames") or 1)
    refuse_large_volume(name, prod(int(n) for n in counts) * int(header.BitsAllocated) // 8)


@dataclass(frozen=True, eq=False)
class Pixels:
    """values: (channels, frames, rows, columns), rescaled. padding: (frames, rows, columns) bool,
    where the header declares them to be no part of the image; None where it declares nothing."""

    values: np.ndarray
    padding: np.ndarray | None


def pixels_of(one: Slice, frames: Sequence[Frame], kind: np.dtype[Any]) -> Pixels:
    """The pixels of an instance, rescaled to the type kind, frames in stored order.

    MONOCHROME1 is not inverted, however it is compressed.
    """
    header = one.header
    rows, columns, samples = (
        int(header.get(name) or 0) for name in ("Rows", "Columns", "SamplesPerPixel")
    )
    if min(rows, columns) < 1 or samples not in (1, 3):
        raise FileError(f"{one.name} holds no image of 1 or 3 channels; choose another file.")
    palette = header.get("PhotometricInterpretation") == "PALETTE COLOR"
    channels = 3 if palette else samples
    refuse_large_volume(one.name, rows * columns * channels * len(frames) * kind.itemsize)
    full = one.whole()
    if not _is_true_jpeg(full, (columns, rows), len(frames)):
        raise FileError(
            f"{one.name} holds compressed frames that do not have the size that its header "
            "declares; export it again."
        )
    stored = _stored(full, (channels, len(frames), rows, columns), palette)
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if channels == 1:
        stored = without_drawings(stored, header)
    padding = padding_of(stored[0], header) if channels == 1 else None
    return Pixels(rescaled(stored, frames, kind), padding)


def _stored(full: Any, shape: tuple[int, int, int, int], palette: bool) -> np.ndarray:
    """The values as they are stored, in the shape (channels, frames, rows, columns)."""
    channels, *size = shape
    syntax = full.file_meta.TransferSyntaxUID
    if channels == 1 and syntax in _LITTLE_ENDIAN:
        kind = np.dtype(f"<{'i' if full.PixelRepresentation else 'u'}{full.BitsAllocated // 8}")
        return np.frombuffer(full.PixelData, kind, prod(shape)).reshape(shape)
    as_written = not syntax.is_encapsulated or syntax == _RLE
    if as_written or low_bits(full):  # decoders cut off padding, or the wrong bits
        full = _with_all_bits(full)
    if as_written or syntax in (_JPEG_BASELINE, *_JPEG_2000):
        return np.moveaxis(_by_pydicom(full, palette).reshape(*size, channels), -1, 0)
    return _by_itk(full, palette).reshape(shape)


def _with_all_bits(full: Any) -> Any:
    """The same data set as if all bits that are allocated were used."""
    from pydicom.dataset import Dataset

    copy = Dataset(dict(full.items()))
    copy.file_meta = full.file_meta
    copy.BitsStored, copy.HighBit = full.BitsAllocated, full.BitsAllocated - 1
    return copy


def _by_itk(full: Any, palette: bool) -> np.ndarray:
    """Stored values (frames, rows, columns[, 3] or channels first) by ITK's decoders.

    ITK gets a copy that says nothing but how the pixels are stored: otherwise it would invert,
    rescale, or not know what kind of object it is.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.pixels import apply_color_lut
    from pydicom.uid import generate_uid

    plain = Dataset()
    plain.file_meta = FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = full.file_meta.TransferSyntaxUID
    plain.SOPClassUID = plain.file_meta.MediaStorageSOPClassUID = _SECONDARY_CAPTURE
    plain.SOPInstanceUID = plain.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for name in _STORAGE:
        if name in full:
            plain[name] = full[name]
    if plain.SamplesPerPixel == 1:
        plain.PhotometricInterpretation = "MONOCHROME2"
    with TemporaryDirectory() as folder:
        path = Path(folder, "pixels.dcm")
        plain.save_as(path, enforce_file_format=True)
        stored = channels_first(read_itk(path, Format.DICOM))
    return np.moveaxis(apply_color_lut(stored[0], full), -1, 0) if palette else stored


def _by_pydicom(full: Any, palette: bool) -> np.ndarray:
    from pydicom.pixels import apply_color_lut, pixel_array

    stored: np.ndarray = pixel_array(full)
    return np.asarray(apply_color_lut(stored, full)) if palette else stored


def _is_true_jpeg(full: Any, size: tuple[int, int], count: int) -> bool:
    """Whether each compressed frame is of the declared size; decoders obey the one inside."""
    syntax = full.file_meta.TransferSyntaxUID
    if not syntax.startswith(_JPEG_PREFIX):
        return True
    from pydicom.encaps import generate_frames

    measure = _jpeg_2000_size if syntax in _JPEG_2000 else _jpeg_size
    frames = generate_frames(full.PixelData, number_of_frames=count)
    return {measure(frame) for frame in frames} == {size}


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    """(columns, rows) from the start-of-frame marker (ITU T.81, B.2.2); (0, 0) without one."""
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        if frame[at + 1] in _START_OF_FRAME:
            rows, columns = frame[at + 5 : at + 7], frame[at + 7 : at + 9]
            return int.from_bytes(columns, "big"), int.from_bytes(rows, "big")
        at += 1 if frame[at + 1] == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return 0, 0


def _jpeg_2000_size(frame: bytes) -> tuple[int, int]:
    import PIL.Image

    PIL.Image.init()
    with PIL.Image.open(io.BytesIO(frame), formats=("JPEG2000",)) as picture:
        return picture.size
