"""The pass of a SuperPointNet in NumPy, for pictures that need no torch: loading it takes longer.

Batch norm is folded into the convolution before it. A convolution is one product of matrices: nine
shifted views of the padded picture, as rows of pixels, lie under each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

SMALL = 1e-5  # what torch adds to variances
MULTIPLE = 32  # of which the sides of a picture are


@dataclass(frozen=True, eq=False)
class Convolution:
    """matrix: (out, in * k * k), offsets: (out, 1), k: 3 or 1. is_rectified: below 0 becomes 0."""

    matrix: np.ndarray
    offsets: np.ndarray
    is_rectified: bool

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Maps (in, h, w) to (out, h, w); outside the picture is 0."""
        channels, height, width = maps.shape
        if self.matrix.shape[1] == channels:
            found = self.matrix @ maps.reshape(channels, -1)
        else:
            found = self.matrix @ _neighbours(maps)
        found += self.offsets
        if self.is_rectified:
            np.maximum(found, 0, out=found)
        return found.reshape(len(found), height, -1)[:, :, :width]


def _neighbours(maps: np.ndarray) -> np.ndarray:
    """(9 c, h * (w + 2)): each pixel's neighbours row by row; two more columns hold nonsense."""
    channels, height, width = maps.shape
    padded = np.zeros((channels, height + 3, width + 2), np.float32)
    padded[:, 1 : height + 1, 1 : width + 1] = maps
    flat, length = padded.reshape(channels, -1), height * (width + 2)
    shifts = [down * (width + 2) + right for down in range(3) for right in range(3)]
    return np.concatenate([flat[:, shift : shift + length] for shift in shifts])


class SuperPointArrays:
    """See SuperPointNet, whose parameters by name, float32, it is made of.

    sharpness: what cosines of descriptors are multiplied by to be the logits of a match.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        self._down = [[_block(tensors, f"down.{n}.{m}") for m in (0, 1)] for n in range(5)]
        self._up = [_block(tensors, f"up.{n}") for n in (0, 1)]
        self._detector, self._describer = (
            [_block(tensors, f"{name}.0"), _plain(tensors, f"{name}.1")]
            for name in ("detector", "describer")
        )
        self.sharpness = float(np.exp(tensors["sharpness"]))

    def cells(self, picture: np.ndarray) -> np.ndarray:
        """Logits (65, h / 8, w / 8) of the pixels of the cells of a picture (h, w)."""
        return _through(self._detector, self._maps(picture))

    def descriptors(self, picture: np.ndarray) -> np.ndarray:
        """Descriptors (d, h / 8, w / 8) of the cells of a picture (h, w)."""
        return _through(self._describer, self._maps(picture))

    def _maps(self, picture: np.ndarray) -> np.ndarray:
        """What both heads see."""
        height, width = picture.shape
        squares = picture.reshape(height // 2, 2, width // 2, 2).transpose(1, 3, 0, 2)
        maps = squares.reshape(4, height // 2, width // 2)
        levels = []
        for index, layers in enumerate(self._down):
            maps = _through(layers, _halved(maps) if index else maps)
            levels.append(maps)
        for layer, finer in zip(self._up, (levels[3], levels[2]), strict=True):
            maps = layer(maps.repeat(2, axis=1).repeat(2, axis=2) + finer)
        return maps


def _through(layers: list[Convolution], maps: np.ndarray) -> np.ndarray:
    for layer in layers:
        maps = layer(maps)
    return maps


def _halved(maps: np.ndarray) -> np.ndarray:
    """The maximum of each square of 2 x 2 pixels."""
    rows = np.maximum(maps[:, ::2], maps[:, 1::2])
    return np.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def _block(tensors: Mapping[str, np.ndarray], name: str) -> Convolution:
    """A convolution with the batch norm after it."""
    weight, norm = tensors[f"{name}.0.weight"], f"{name}.1"
    factor = tensors[f"{norm}.weight"] / np.sqrt(tensors[f"{norm}.running_var"] + SMALL)
    offsets = tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * factor
    return Convolution(_matrix(weight) * factor[:, None], offsets[:, None], True)


def _plain(tensors: Mapping[str, np.ndarray], name: str) -> Convolution:
    return Convolution(_matrix(tensors[f"{name}.weight"]), tensors[f"{name}.bias"][:, None], False)


def _matrix(weight: np.ndarray) -> np.ndarray:
    """Weights (out, in, k, k) as (out, k * k * in), in the order of _neighbours."""
    return np.ascontiguousarray(weight.transpose(0, 2, 3, 1).reshape(len(weight), -1))
