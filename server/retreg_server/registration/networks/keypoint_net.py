"""Networks that turn an image into the heat-maps of k keypoints, in 2-D and 3-D.

`conv` and `truncated-unet` have the layers of KeyMorph (Wang et al. 2023) and of
BrainMorph (2024); `light` is a small encoder and decoder for the CPU with a stem of stride 2 and
heat-maps at a quarter of the resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from monai.networks.blocks import Convolution
from torch import nn
from torch.nn import functional

from retreg.errors import OptionError
from retreg_server.registration.networks.centre_of_mass import HeatMapPoints, centre_of_mass

Backbone = Literal["light", "conv", "truncated-unet"]
FEWEST_KEYPOINTS, MOST_KEYPOINTS = 16, 512
SLOPE = 0.1
WIDEST = 8  # times the width of the first layer, in the light network


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build a network: it is stored with its weights.

    dimensions: 2 or 3. keypoints: 16 to 512. width: channels of the first layer (KeyMorph: 32).
    levels: resolutions of the encoder, for `light` and `truncated-unet`.
    Raises OptionError for values that no network has.
    """

    backbone: Backbone
    dimensions: int
    keypoints: int
    width: int = 16
    levels: int = 4

    def __post_init__(self) -> None:
        if self.backbone not in get_args(Backbone) or self.dimensions not in (2, 3):
            raise OptionError(
                f"The backbone {self.backbone!r} in {self.dimensions} dimensions is not known; use "
                f"{', '.join(get_args(Backbone))} in 2 or 3."
            )
        if not FEWEST_KEYPOINTS <= self.keypoints <= MOST_KEYPOINTS:
            raise OptionError(
                f"{self.keypoints} keypoints were asked for; {FEWEST_KEYPOINTS} to "
                f"{MOST_KEYPOINTS} are possible."
            )
        if not (1 <= self.width <= 128 and 3 <= self.levels <= 7):
            raise OptionError("A width of 1 to 128 and 3 to 7 levels were expected.")

    @property
    def stride(self) -> int:
        """Pixels of the input per pixel of the heat-map."""
        return {"light": 4, "conv": 16, "truncated-unet": 2}[self.backbone]

    @property
    def multiple(self) -> int:
        """The sides of the input must be multiples of this."""
        return {"light": 2**self.levels, "conv": 16}.get(self.backbone, 2 ** (self.levels - 1))

    def as_dict(self) -> dict[str, str | int]:
        """The values by name, as stored in metadata."""
        return asdict(self)

    def build(self) -> KeypointNet:
        """A network with fresh weights."""
        return KeypointNet(self)


class KeypointNet(nn.Module):
    """Image (b, 1, [z,] y, x) to HeatMapPoints of k keypoints.

    mixed_precision: compute the heat-maps with bfloat16 where that is safe; points never are.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.mixed_precision = False
        self.architecture = architecture
        make = {"light": _LightNet, "conv": _ConvNet, "truncated-unet": _TruncatedUNet}
        self.maps = make[architecture.backbone](architecture)

    def forward(self, image: torch.Tensor) -> HeatMapPoints:
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.mixed_precision):
            maps = self.maps(image)
        return centre_of_mass(maps)


def net_from_dict(values: Mapping[str, str | int]) -> KeypointNet:
    """A network with fresh weights from Architecture.as_dict(). Raises OptionError."""
    try:
        architecture = Architecture(**values)  # type: ignore[arg-type]
    except TypeError as error:
        raise OptionError("The architecture has unknown or missing fields.") from error
    return KeypointNet(architecture)


def _block(dimensions: int, inside: int, outside: int, stride: int = 1) -> nn.Module:
    """3x3(x3) convolution, instance norm, leaky rectifier."""
    block: nn.Module = Convolution(
        dimensions,
        inside,
        outside,
        strides=stride,
        kernel_size=3,
        adn_ordering="NA",
        norm="INSTANCE",
        act=("LEAKYRELU", {"negative_slope": SLOPE}),
    )
    return block


def _head(dimensions: int, inside: int, keypoints: int) -> nn.Module:
    """1x1(x1) convolution to the heat-maps, which start positive so that all of them learn."""
    head: nn.Module = Convolution(dimensions, inside, keypoints, kernel_size=1, conv_only=True)
    nn.init.ones_(dict(head.named_parameters())["conv.bias"])
    return head


def _pool(maps: torch.Tensor) -> torch.Tensor:
    pool = functional.max_pool2d if maps.ndim == 4 else functional.max_pool3d
    return pool(maps, 2)


def _joined(coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    """The coarse maps at twice their size beside the fine ones."""
    return torch.cat([functional.interpolate(coarse, scale_factor=2), fine], dim=1)


class _LightNet(nn.Module):
    """Stride-2 stem, an encoder of doubling widths, a decoder up to a quarter of the size."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        d, width = architecture.dimensions, architecture.width
        widths = [width * min(2**level, WIDEST) for level in range(architecture.levels)]
        self.stem = _block(d, 1, width, stride=2)
        self.encoder = nn.ModuleList(
            nn.Sequential(_block(d, a, b, stride=2), _block(d, b, b))
            for a, b in pairwise(widths)
        )
        self.decoder = nn.ModuleList()
        inside = widths[-1]
        for skipped in reversed(widths[1:-1]):
            self.decoder.append(_block(d, inside + skipped, 3 * skipped // 2))
            inside = 3 * skipped // 2
        self.head = _head(d, inside, architecture.keypoints)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = self.stem(image)
        skipped = []
        for layer in self.encoder:
            maps = layer(maps)
            skipped.append(maps)
        for layer, fine in zip(self.decoder, reversed(skipped[:-1]), strict=True):
            maps = layer(_joined(maps, fine))
        return torch.as_tensor(self.head(maps))


class _ConvNet(nn.Module):
    """Nine blocks with pooling after the second, fourth, sixth and eighth."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        d = architecture.dimensions
        widths = [1, *(architecture.width * factor for factor in (1, 2, 2, 4, 4, 8, 8, 16))]
        blocks = [_block(d, a, b) for a, b in pairwise(widths)]
        self.blocks = nn.ModuleList(blocks)
        self.last = _block(d, widths[-1], architecture.keypoints)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = image
        for index, block in enumerate(self.blocks):
            maps = block(maps)
            if index % 2 == 1:
                maps = _pool(maps)
        return torch.as_tensor(self.last(maps))


class _TruncatedUNet(nn.Module):
    """A U-Net without its last decoder: heat-maps at half the resolution."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        d = architecture.dimensions
        widths = [architecture.width * 2**level for level in range(architecture.levels)]
        self.encoder = nn.ModuleList(
            nn.Sequential(_block(d, a, max(b // 2, 1)), _block(d, max(b // 2, 1), b))
            for a, b in pairwise([1, *widths])
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(_block(d, 3 * b, b), _block(d, b, b)) for b in reversed(widths[1:-1])
        )
        self.head = _head(d, widths[1], architecture.keypoints)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps, skipped = image, []
        for index, layer in enumerate(self.encoder):
            maps = layer(_pool(maps) if index else maps)
            skipped.append(maps)
        for layer, fine in zip(self.decoder, reversed(skipped[1:-1]), strict=True):
            maps = layer(_joined(maps, fine))
        return torch.as_tensor(self.head(maps))
