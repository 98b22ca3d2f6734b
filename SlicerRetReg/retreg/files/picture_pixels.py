"""Pixels of a decoded picture, the way up and the colours that a viewer shows."""

from __future__ import annotations

import numpy as np


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn (height, width, channels) the way EXIF's orientation 1 to 8 says."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def over_black(pixels: np.ndarray, opaque: int) -> np.ndarray:
    """Colour times opacity, rounded; the last channel is the opacity and is dropped.

    Opacity that is 0 everywhere was never set, as in many bitmaps of 32 bits, and hides nothing.
    """
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    if (alpha == opaque).all() or not alpha.any():
        return colour
    if pixels.dtype.kind == "f":
        return colour * alpha
    product = colour.astype(np.uint64) * alpha
    return ((product + opaque // 2) // opaque).astype(pixels.dtype)
