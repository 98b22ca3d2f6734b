"""How large an input may be. Everything is checked before memory is taken for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from retreg.errors import TooLargeError

MAX_PICTURE_PIXELS = 89_000_000  # 8000 x 8000 passes; also below the size at which Pillow warns
MAX_VOLUME_BYTES = 1_100_000_000  # decoded; 512 x 512 x 512 passes in every voxel type
MAX_TOGETHER_BYTES = 1_200_000_000  # of decoded images that are worked on at once
MAX_FILE_BYTES = 2_000_000_000
MAX_TRANSFORM_BYTES = 500_000_000
MAX_MARKUPS_BYTES = 20_000_000
MAX_TEXT_HEADER_BYTES = 1_000_000
MAX_SERIES_FILES = 10_000
MAX_DICOM_READS = 300_000  # read calls that one header may take: bounds elements and time
MAX_DICOM_ELEMENT_BYTES = 16_000_000  # of one header element; pixel data do not count


_most_bytes: ContextVar[int] = ContextVar("most_bytes", default=MAX_VOLUME_BYTES)


@contextmanager
def decoded_at_most(nbytes: int) -> Iterator[None]:
    """Within this, no image is decoded that takes more bytes, or more than MAX_VOLUME_BYTES."""
    mark = _most_bytes.set(min(nbytes, MAX_VOLUME_BYTES))
    try:
        yield
    finally:
        _most_bytes.reset(mark)


def refuse_large_volume(name: str, decoded_bytes: int) -> None:
    """Raise TooLargeError when the decoded voxels of the named file would exceed the limit."""
    limit = _most_bytes.get()
    if decoded_bytes > limit:
        raise TooLargeError(
            f"{name} declares {gigabytes(decoded_bytes)} of voxels; at most "
            f"{gigabytes(limit)} are accepted, so crop it or make it coarser."
        )


def refuse_large_picture(name: str, width: int, height: int) -> None:
    """Raise TooLargeError when a picture of width x height pixels would exceed the limit."""
    limit = min(MAX_PICTURE_PIXELS, _most_bytes.get())
    if width * height > limit:
        raise TooLargeError(
            f"{name} declares {width} x {height} pixels; at most {limit // 1_000_000} million are "
            "accepted, so make it smaller."
        )


def gigabytes(count: int) -> str:
    """As told in sentences."""
    return f"{count / 1e9:,.0f} GB" if count > 1e11 else f"{count / 1e9:.3g} GB"
