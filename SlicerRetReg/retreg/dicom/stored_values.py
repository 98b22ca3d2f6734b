"""How voxels are stored: in the type and with the rescaling of the image that they come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retreg.dicom.source import Source

_HIGHEST = 65535


@dataclass(frozen=True)
class Storage:
    """value = slope * stored + intercept, of 16-bit words of which bits are used."""

    slope: float
    intercept: float
    bits: int
    is_signed: bool

    @property
    def is_rescaled(self) -> bool:
        """Whether the stored values are others than the values."""
        return (self.slope, self.intercept) != (1.0, 0.0)

    def stored(self, values: np.ndarray) -> np.ndarray:
        """The words for values of any shape, rounded, and cut at the ends of their range."""
        low, high = _range(self.bits, self.is_signed)
        if self.is_rescaled or values.dtype.kind == "f":
            values = np.rint((values.astype(np.float64) - self.intercept) / self.slope)
        else:  # integers as they are, whose type may not reach as far
            ends = np.iinfo(values.dtype)
            low, high = max(low, ends.min), min(high, ends.max)
        return np.clip(values, low, high).astype("<i2" if self.is_signed else "<u2")


def storage_of(source: Source, values: np.ndarray) -> Storage:
    """That of the source where one rescaling in at most 16 bits holds for all of them and fits.

    Otherwise the range of the values is spread over 16 bits.
    """
    headers = source.headers
    scales = {(frame.slope, frame.intercept) for frame in source.frames}
    low, high = float(values.min()), float(values.max())
    bits = max(int(each.BitsStored) for each in headers)
    kinds = {int(each.PixelRepresentation) for each in headers}
    if len(scales) == 1 and bits <= 16 and len(kinds) == 1 and source.header.SamplesPerPixel == 1:
        slope, intercept = scales.pop()
        found = Storage(slope, intercept, bits, kinds.pop() == 1)
        ends = _range(found.bits, found.is_signed)
        reach = sorted(slope * end + intercept for end in ends)
        if reach[0] <= low <= high <= reach[1]:
            return found
    return Storage((high - low) / _HIGHEST or 1.0, low, 16, False)


def _range(bits: int, is_signed: bool) -> tuple[int, int]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
