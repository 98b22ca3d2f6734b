"""What the stored values of DICOM pixels mean: unused bits, padding, and the rescaling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from retreg.errors import FileError
from retreg.files.dicom_geometry import Frame


def voxel_type(header: Any, frames: Sequence[Frame]) -> np.dtype[Any]:
    """The smallest type that holds every rescaled value; float32 when slopes are broken."""
    bits = int(header.BitsAllocated)
    if bits not in (8, 16, 32):
        raise FileError(f"Pixels of {bits} bits are not supported; export 8, 16 or 32 bits.")
    low, high = _limits(header, bits)
    scales = {(frame.slope, frame.intercept) for frame in frames}
    if any(slope % 1 or intercept % 1 for slope, intercept in scales):
        return np.dtype(np.float32)
    ends = [int(v * slope + offset) for slope, offset in scales for v in (low, high)]
    if not -(2**31) <= min(ends) <= max(ends) < 2**32:
        return np.dtype(np.float32)
    return np.result_type(np.min_scalar_type(min(ends)), np.min_scalar_type(max(ends)))


def rescaled(stored: np.ndarray, frames: Sequence[Frame], kind: np.dtype[Any]) -> np.ndarray:
    """slope * stored + intercept of each frame, (channels, frames, rows, columns), as kind."""
    if all((frame.slope, frame.intercept) == (1, 0) for frame in frames):
        return stored  # copied once, where the frames are put in order
    out = np.empty(stored.shape, kind)
    for n, frame in enumerate(frames):
        values = stored[:, n].astype(np.float64) * frame.slope + frame.intercept
        out[:, n] = values if kind.kind == "f" else np.rint(values)
    return out


def without_drawings(stored: np.ndarray, header: Any) -> np.ndarray:
    """Values of only the bits that belong to them; older files keep drawings in the others."""
    bits, total = int(header.get("BitsStored") or 0), 8 * stored.dtype.itemsize
    if stored.dtype.kind not in "ui" or not 0 < bits < total:
        return stored
    unused, spare = total - bits, low_bits(header)
    low, high = _limits(header, bits)
    if spare == 0 and low <= stored.min() and stored.max() <= high:
        return stored
    raw = stored.view(f"u{stored.dtype.itemsize}") << (unused - spare)
    values = raw.view(stored.dtype) >> unused  # repeats the sign where there is one
    padding = padding_of(stored, header) if spare == 0 else None
    if padding is not None and not ((stored >= low) & (stored <= high))[padding].any():
        values[padding] = stored[padding]  # whose value needs more bits than BitsStored
    return values


def low_bits(header: Any) -> int:
    """How many bits lie below those of a value; none in files of today."""
    return max(int(header.get("HighBit") or 0) + 1 - int(header.get("BitsStored") or 99), 0)


def padding_of(stored: np.ndarray, header: Any) -> np.ndarray | None:
    """Where the values are those of padding (PS3.3 C.7.5.1.1.2); None if there is no such."""
    value, end = header.get("PixelPaddingValue"), header.get("PixelPaddingRangeLimit")
    if value is None or not isinstance(value, int) or stored.dtype.kind not in "ui":
        return None
    ends = [value, end if isinstance(end, int) else value]
    low, high = sorted(int(np.array([n]).astype(stored.dtype)[0]) for n in ends)
    return (stored >= low) & (stored <= high)


def fill_padding(values: np.ndarray, padding: np.ndarray) -> None:
    """Give padded pixels the lowest value of the others, in place, so that they are background.

    Padding among the values of the image does no harm and stays, as after lossy compression.
    values: (channels, frames, rows, columns). padding: (frames, rows, columns) bool.
    """
    if not padding.any() or padding.all():
        return
    (lowest_padded, highest_padded), (lowest, highest) = (
        _range(values, mask) for mask in (padding, ~padding)
    )
    if highest_padded < lowest or lowest_padded > highest:
        values[:, padding] = lowest


def _range(values: np.ndarray, mask: np.ndarray) -> tuple[Any, Any]:
    """The lowest and highest value where mask is true; frame by frame, to need little memory."""
    parts = (values[:, n, inside] for n, inside in enumerate(mask) if inside.any())
    lows, highs = zip(*((part.min(), part.max()) for part in parts), strict=True)
    return min(lows), max(highs)


def _limits(header: Any, bits: int) -> tuple[int, int]:
    """The lowest and highest stored value of so many bits."""
    if header.get("PixelRepresentation", 0):
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1
