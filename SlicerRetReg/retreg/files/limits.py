"""How large an input may be. Everything is checked before memory is taken for it."""

from __future__ import annotations

from retreg.errors import FileError

MAX_PICTURE_PIXELS = 89_000_000  # 8000 x 8000 passes; also below the size at which Pillow warns
MAX_VOLUME_BYTES = 1_100_000_000  # decoded; 512 x 512 x 512 passes in every voxel type
MAX_FILE_BYTES = 2_000_000_000
MAX_TRANSFORM_BYTES = 500_000_000
MAX_MARKUPS_BYTES = 20_000_000
MAX_TEXT_HEADER_BYTES = 1_000_000
MAX_SERIES_FILES = 10_000
MAX_DICOM_READS = 300_000  # read calls that one header may take: bounds elements and time
MAX_DICOM_ELEMENT_BYTES = 16_000_000  # of one header element; pixel data do not count


def refuse_large_volume(name: str, decoded_bytes: int) -> None:
    """Raise FileError when the decoded voxels of the named file would exceed the limit."""
    if decoded_bytes > MAX_VOLUME_BYTES:
        raise FileError(
            f"{name} declares {_gigabytes(decoded_bytes)} of voxels; at most "
            f"{_gigabytes(MAX_VOLUME_BYTES)} are accepted, so crop it or make it coarser."
        )


def refuse_large_picture(name: str, width: int, height: int) -> None:
    """Raise FileError when a picture of width x height pixels would exceed the limit."""
    if width * height > MAX_PICTURE_PIXELS:
        raise FileError(
            f"{name} declares {width} x {height} pixels; at most "
            f"{MAX_PICTURE_PIXELS // 1_000_000} million are accepted, so make it smaller."
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.0f} GB" if count > 1e11 else f"{count / 1e9:.3g} GB"
