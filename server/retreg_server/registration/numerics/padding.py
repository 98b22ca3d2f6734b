"""Voxels where nothing was scanned: NaN, or one value far outside of everything else.

Scanners and converters fill what lies outside the field of view with a value such as -32768. Taken
as intensities, it would stretch the scale until the head is lost in it.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from retreg.image import Image

COMMON = 1e-3  # a padding value is shared by more than this share of the voxels
AIR = 0.15  # what is darker than this share of the range is air
BELOW = 0.25  # where no air is beside it, padding becomes so much darker than what was scanned
RIM = 2  # voxels beside interpolated padding that hold a little of it
RIM_WIDTHS = 3
SAMPLES = 400_000  # voxels that are enough to measure levels


def scanned(image: Image) -> np.ndarray:
    """The grey volume (k, j, i) float32 with its padding set to the level of the air beside it."""
    return without_padding(image.grey(), ~np.isfinite(image.array).all(axis=0))


def without_padding(grey: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """The volume (k, j, i) float32 with its padding set to the level of the air beside it.

    missing: (k, j, i) bool, where there is no number. A lowest or highest value counts as padding
    when it is common and further from the rest than the rest is wide: the rest without its
    outliers below, all of it above, where saturated tissue may be as common. Below, only values
    under 0 count. Without padding the same array is returned.
    """
    padding = missing
    for _ in range(3):  # a volume may be padded below, above, and twice
        found = _extreme(grey, padding)
        if found is None:
            break
        padding = padding | found
    if not padding.any() or padding.all():
        return grey
    return np.where(padding, np.float32(_level(grey, padding)), grey)


def _extreme(grey: np.ndarray, padding: np.ndarray) -> np.ndarray | None:
    """The voxels of a lowest or highest value that is padding, or None."""
    values = grey[~padding] if padding.any() else grey.ravel()
    if values.size == 0:
        return None
    lowest, highest = values.min(), values.max()
    if lowest == highest:
        return None
    for extreme in (lowest, highest) if lowest < 0 else (highest,):
        count = np.count_nonzero(values == extreme)
        if not COMMON * values.size <= count <= (1 - COMMON) * values.size:
            continue
        rest = values[values != extreme]
        (low, high), top = _range(rest), rest.max()
        if high > low and extreme > top + (top - low):
            return grey == extreme
        below = _below(rest)
        if extreme < min(below, 0):  # 0 is what stands around a stripped brain
            found = grey <= below
            interpolated = np.count_nonzero(found) > count + COMMON * found.size
            return ndimage.binary_dilation(found, iterations=RIM) if interpolated else found
    return None


def _below(rest: np.ndarray) -> float:
    """Nothing that was scanned is below this level: by the width of the rest below its low end.

    Where padding was interpolated, its rim may be the low end, and then a higher one counts, with a
    wider berth.
    """
    low, high = _range(rest)
    quarter, _ = _range(rest, 25)
    if not high > quarter:
        return -np.inf
    return max(low - (high - low), quarter - RIM_WIDTHS * (high - quarter))


def _range(values: np.ndarray, lower: float = 5) -> tuple[float, float]:
    step = max(1, values.size // SAMPLES)
    low, high = np.percentile(values[::step], (lower, 95))
    return float(low), float(high)


def _level(grey: np.ndarray, padding: np.ndarray) -> float:
    """The median beside the padding where that is air, else a little below what was scanned."""
    low, high = _range(grey[~padding])
    step = max(1, round((grey.size / SAMPLES) ** (1 / 3)))
    thin, thin_padding = (array[::step, ::step, ::step] for array in (grey, padding))
    beside = thin[ndimage.binary_dilation(thin_padding) & ~thin_padding]
    edge = float(np.median(beside)) if beside.size else np.inf
    return edge if edge < low + AIR * (high - low) else low - BELOW * (high - low)
