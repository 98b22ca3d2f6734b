"""What stands around the object in an image, and so beyond the image when it is resampled."""

from __future__ import annotations

import numpy as np

from retreg.errors import OptionError
from retreg.image import Image

COMMON = 0.2  # a value shared by so many voxels of the border is the background itself
BINS = 64


def fill_values(image: Image, fill: float | None) -> np.ndarray:
    """The value beyond the image for each channel, (channels,): fill, or the background for None.

    Raises OptionError when voxels of the type of the image cannot hold fill.
    """
    if fill is None:
        return background(image)
    dtype = image.array.dtype
    limits = np.iinfo(dtype) if dtype.kind in "ui" else np.finfo(dtype)
    holds_it = limits.min <= fill <= limits.max or (dtype.kind == "f" and not np.isfinite(fill))
    if not holds_it:
        raise OptionError(
            f"The fill value {fill:g} was given, but the voxels of the moving image are {dtype}; a "
            f"number from {limits.min:g} to {limits.max:g} was expected."
        )
    return np.full(len(image.array), fill, np.float64)


def background(image: Image) -> np.ndarray:
    """The value of the empty surroundings for each channel, (channels,) float64.

    The most frequent value at the border of a volume: the value itself where many voxels share it,
    as padding and air set to one value do, else the middle of the fullest of BINS classes, as with
    noise. A picture is black around, 0, unless it has values below 0.
    """
    if image.is_picture and not image.array.min() < 0:
        return np.zeros(len(image.array))
    return np.array([_most_frequent(_border(channel)) for channel in image.array])


def _border(values: np.ndarray) -> np.ndarray:
    """The outermost numbers of (k, j, i) along every axis that has more than one voxel."""
    ends = [values.take([0, -1], axis).ravel() for axis, n in enumerate(values.shape) if n > 1]
    border = np.concatenate(ends) if ends else values.ravel()
    return border[np.isfinite(border)]


def _most_frequent(values: np.ndarray) -> float:
    if values.size == 0:
        return 0.0
    kinds, counts = np.unique(values, return_counts=True)
    if counts.max() >= COMMON * values.size:
        return float(kinds[np.argmax(counts)])
    low, high = np.percentile(values, (1, 99))
    classes, edges = np.histogram(values, bins=BINS, range=(float(low), float(high)))
    fullest = int(np.argmax(classes))
    inside = (values >= edges[fullest]) & (values <= edges[fullest + 1])
    return float(np.median(values[inside]))
