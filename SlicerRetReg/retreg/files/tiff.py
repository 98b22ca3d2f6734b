"""TIFF beyond 8 bits, which Pillow cuts down or refuses: colour of any depth, planes, BigTIFF.

Source: TIFF 6.0, sections 8 (colour), 18 (associated alpha) and 19 (data sample format).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retreg.errors import FileError
from retreg.files.limits import refuse_large_picture, refuse_large_volume
from retreg.files.picture_pixels import over_black, upright
from retreg.image import MAX_CHANNELS

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION, _SAMPLE_FORMAT = 258, 262, 274, 339
_UNSIGNED, _SIGNED = 1, 2
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_UNASSOCIATED_ALPHA = 2
MOST_PREVIEWS = 20  # smaller pages beside the picture of a file


def is_deep_tiff(picture: Picture) -> bool:
    """Whether Pillow would cut the samples down to 8 bits, or change their sign or order."""
    if picture.format != "TIFF":
        return False
    tags = picture.tag_v2  # type: ignore[attr-defined]
    bits, kind = tags.get(_BITS_PER_SAMPLE, (1,)), tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0]
    if kind == _SIGNED or (kind == _UNSIGNED and max(bits) > 16):
        return True
    return max(bits) > 8 and (len(bits) > 1 or tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO)


def read_deep_tiff(path: Path) -> np.ndarray:
    """(height, width, 1 or 3) of the only page, with the type of the file, alpha over black.

    The size is checked, and that all of the content is there, before anything is decoded. Raises
    FileError, or whatever tifffile raises on damaged files.
    """
    try:
        import tifffile
    except ImportError:
        raise FileError(
            f"{path.name} is a TIFF of more than 8 bits, and tifffile, which reads it, is not "
            "installed; install it, or save the picture as 16-bit PNG."
        ) from None
    with _quiet(), tifffile.TiffFile(path) as file:
        page = file.pages.first
        _refuse_unusable(path, file, page)
        stored = page.asarray(squeeze=False, maxworkers=1)  # (planes, 1, height, width, samples)
        pixels = np.moveaxis(stored[:, 0], 0, 2).reshape(*stored.shape[2:4], -1)
        orientation = int(page.tags.valueof(_ORIENTATION, 1))
        if page.photometric == _WHITE_IS_ZERO:
            pixels = _inverted(pixels)
        return upright(_without_alpha(pixels, page.extrasamples), orientation)


@contextmanager
def _quiet() -> Iterator[None]:
    """tifffile's complaints go to standard error by default; they stay off within the block."""
    logger = logging.getLogger("tifffile")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _refuse_unusable(path: Path, file: Any, page: Any) -> None:
    """Raise FileError for what is too large, cut off, or not one picture of grey or colour."""
    refuse_large_picture(path.name, page.imagewidth, page.imagelength)
    refuse_large_volume(path.name, page.nbytes)
    if page.imagedepth > 1 or _is_one_of_several(file.pages, page):
        raise FileError(
            f"{path.name} holds several pages; save the page to be registered as a file of its own."
        )
    if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        raise FileError(f"{path.name} has an unusual layout of colours; save it as 16-bit PNG.")
    if page.samplesperpixel > MAX_CHANNELS:
        raise FileError(
            f"{path.name} has {page.samplesperpixel} values per pixel; at most {MAX_CHANNELS} are "
            "accepted, so save the channels to be registered."
        )
    ends = [at + n for at, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or min(page.databytecounts) <= 0 or max(ends) > path.stat().st_size:
        raise FileError(f"{path.name} is cut off; copy or export it again.")


def _is_one_of_several(pages: Any, first: Any) -> bool:
    """Whether there are more pages than previews, which are smaller and come later."""
    if len(pages) > MOST_PREVIEWS:
        return True
    least = first.imagewidth * first.imagelength
    return any(page.imagewidth * page.imagelength >= least for page in pages[1:])


def _inverted(pixels: np.ndarray) -> np.ndarray:
    """White is zero: so that bright is large, as everywhere else."""
    return -pixels if pixels.dtype.kind == "f" else np.invert(pixels)


def _without_alpha(pixels: np.ndarray, extra: tuple[int, ...]) -> np.ndarray:
    """1 or 3 channels: what the extra samples hide is black, and other extra samples are dropped.

    A file that declares too few extra samples means colour by three or more, as many writers do.
    """
    colours = 3 if pixels.shape[2] >= 3 else 1
    if pixels.shape[2] == colours + 1 and extra and extra[0] == _UNASSOCIATED_ALPHA:
        opaque = 1 if pixels.dtype.kind == "f" else int(np.iinfo(pixels.dtype).max)
        return over_black(pixels, opaque)
    return pixels[..., :colours]
