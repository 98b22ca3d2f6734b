"""A small network that finds and describes points (DeTone et al. 2018, SuperPoint).

Layers are convolutions of 3 x 3, batch norm and rectifiers; the first step puts squares of 2 x 2
pixels into channels, later ones halve by maxima. Two coarser levels tell each place what is around
it. Both heads work at an eighth of the resolution.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.nn import functional

CELL = 8  # pixels on a side for which one point is found at most
FIRST_SHARPNESS = 2.5
LEVELS = (1, 2, 4, 4, 4)  # widths at 1/2, 1/4, 1/8, 1/16, 1/32 over the first


@dataclass(frozen=True)
class PointArchitecture:
    """All that is needed to build a network. width: channels at half resolution; descriptor: of a
    point."""

    width: int = 16
    descriptor: int = 64
    dimensions: int = 2

    def as_dict(self) -> dict[str, int]:
        """The values by name, as stored in metadata."""
        return asdict(self)

    def build(self) -> SuperPointNet:
        """A network with fresh weights."""
        return SuperPointNet(self)


class SuperPointNet(nn.Module):
    """Picture (b, 1, h, w), sides multiples of 32, to cells and descriptors at an eighth.

    cells: (b, 65, h / 8, w / 8), logits of the 64 pixels of a cell, row by row, and of no point
    (SuperPoint's equation for the detector). descriptors: (b, d, h / 8, w / 8) of any length.
    """

    def __init__(self, architecture: PointArchitecture) -> None:
        super().__init__()
        self.mixed_precision = False
        self.architecture = architecture
        self.sharpness = nn.Parameter(torch.tensor(FIRST_SHARPNESS))
        widths = [architecture.width * factor for factor in LEVELS]
        inside = [4, *widths[:-1]]
        self.down = nn.ModuleList(
            nn.Sequential(_block(a, b), _block(b, b)) for a, b in zip(inside, widths, strict=True)
        )
        self.up = nn.ModuleList(_block(widths[2], widths[2]) for _ in range(2))
        self.detector = nn.Sequential(
            _block(widths[2], widths[2]), nn.Conv2d(widths[2], CELL**2 + 1, 1)
        )
        self.describer = nn.Sequential(
            _block(widths[2], widths[2]), nn.Conv2d(widths[2], architecture.descriptor, 1)
        )

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(picture.device.type, torch.bfloat16, enabled=self.mixed_precision):
            maps = functional.pixel_unshuffle(picture, 2)
            levels = []
            for index, layer in enumerate(self.down):
                maps = layer(functional.max_pool2d(maps, 2) if index else maps)
                levels.append(maps)
            for layer, finer in zip(self.up, (levels[3], levels[2]), strict=True):
                maps = layer(functional.interpolate(maps, scale_factor=2) + finer)
            cells, descriptors = self.detector(maps), self.describer(maps)
        return cells.float(), descriptors.float()


def _block(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    )


def sampled(descriptors: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Unit descriptors (n, d) of one picture's map (1, d, h, w) at normalised points (n, 2)."""
    found = functional.grid_sample(
        descriptors, points[None, :, None], padding_mode="border", align_corners=False
    )
    return functional.normalize(found[0, :, :, 0].T, dim=1)
