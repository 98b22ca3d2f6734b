"""A small encoder-decoder whose features, at a half and a quarter of the size, are compared."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

SLOPE = 0.1
WIDEST = 4  # times the width of the first layer


class FeatureEncoder(nn.Module):
    """image (b, channels, [z,] y, x) to features at 1/4 and at 1/2 of the size.

    width: channels of the first layer, and of the features at 1/2; those at 1/4 have twice as
    many. depth: halvings of the size altogether; the sides must be multiples of 2^depth.
    """

    def __init__(self, dimensions: int, channels: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [width * min(2**level, WIDEST) for level in range(depth)]
        self.encoder = nn.ModuleList()
        inside = channels
        for outside in widths:
            self.encoder.append(
                nn.Sequential(
                    _block(dimensions, inside, outside, stride=2),
                    _block(dimensions, outside, outside),
                )
            )
            inside = outside
        self.decoder = nn.ModuleList()
        for skipped in reversed(widths[:-1]):
            self.decoder.append(_block(dimensions, inside + skipped, skipped))
            inside = skipped
        self.heads = nn.ModuleList(
            _convolution(dimensions, features, features, 1) for features in (widths[1], widths[0])
        )

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        levels = []
        for layer in self.encoder:
            image = layer(image)
            levels.append(image)
        decoded = []
        for layer, fine in zip(self.decoder, reversed(levels[:-1]), strict=True):
            larger = functional.interpolate(image, size=fine.shape[2:])
            image = layer(torch.cat([larger, fine], dim=1))
            decoded.append(image)
        quarter, half = (
            head(features) for head, features in zip(self.heads, decoded[-2:], strict=True)
        )
        return quarter, half


def _convolution(
    dimensions: int, inside: int, outside: int, size: int, stride: int = 1
) -> nn.Module:
    kind = nn.Conv2d if dimensions == 2 else nn.Conv3d
    return kind(inside, outside, size, stride, padding=size // 2)


def _block(dimensions: int, inside: int, outside: int, stride: int = 1) -> nn.Module:
    """3x3(x3) convolution, instance norm, leaky rectifier."""
    norm = nn.InstanceNorm2d if dimensions == 2 else nn.InstanceNorm3d
    return nn.Sequential(
        _convolution(dimensions, inside, outside, 3, stride), norm(outside), nn.LeakyReLU(SLOPE)
    )
