"""Which kind of file it is, by its first bytes and not by its name."""

from __future__ import annotations

import gzip
import struct
from enum import Enum
from pathlib import Path

from retreg.errors import FileError

DICOM_MAGIC = b"DICM"
_SNIFFED_BYTES = 4096
_NIFTI_SIZES = {size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big")}
_MGH_START = struct.Struct(">6i")
_LARGEST_MGH_TYPE = 12


class Format(Enum):
    """The readable kinds of image file; the value is how a sentence calls them."""

    PICTURE = "a picture"
    NIFTI = "NIfTI"
    NRRD = "NRRD"
    META = "MetaImage"
    MGH = "a FreeSurfer volume"
    DICOM = "DICOM"


def recognised(path: Path) -> Format:
    """The format of an image file. Raises FileError when it is none of them."""
    with path.open("rb") as file:
        start = file.read(_SNIFFED_BYTES)
    if start[:2] == b"\x1f\x8b":
        start = _inflated_start(path)
        if start[:4] in _NIFTI_SIZES:
            return Format.NIFTI
        if _is_mgh(start):
            return Format.MGH
        raise FileError(
            f"{path.name} is compressed, but there is no NIfTI or MGH image in it; unpack it first."
        )
    if start[128:132] == DICOM_MAGIC:
        return Format.DICOM
    if start.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM")):
        return Format.PICTURE
    if start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return Format.PICTURE
    if start.startswith(b"NRRD000"):
        return Format.NRRD
    if start[:4] in _NIFTI_SIZES:
        return Format.NIFTI
    if _is_mgh(start):
        return Format.MGH
    if b"NDims" in start and b"=" in start:
        return Format.META
    if _is_bare_dicom(start):
        return Format.DICOM
    raise FileError(
        f"{path.name} is of an unknown format; PNG, JPEG, TIFF, BMP, NRRD, NIfTI, MHA, MGZ or "
        "DICOM was expected."
    )


def _is_bare_dicom(start: bytes) -> bool:
    """Whether a DICOM data set without a preamble begins here: its groups are 2 or 8 (PS3.10)."""
    group, element = start[:2], int.from_bytes(start[2:4], "little")
    if start[:4] == DICOM_MAGIC:
        return True
    if group not in (b"\x02\0", b"\x08\0") or element > 0x100:
        return False
    is_explicit = start[4:6] in (b"UL", b"OB", b"UI", b"CS", b"DA", b"TM", b"LO", b"SH", b"DT")
    return is_explicit or int.from_bytes(start[4:8], "little") <= 256


def _is_mgh(start: bytes) -> bool:
    """Version 1, four sizes of at least 1, and a type of voxels, all as big-endian integers."""
    if len(start) < _MGH_START.size:
        return False
    version, *sizes, kind = _MGH_START.unpack_from(start)
    return version == 1 and min(sizes) >= 1 and 0 <= kind <= _LARGEST_MGH_TYPE


def _inflated_start(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(_SNIFFED_BYTES)
    except (OSError, EOFError):
        return b""
    except Exception:  # zlib.error and others: not gzip after all
        return b""
