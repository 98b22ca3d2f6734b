"""The networks that look at two images and answer with a displacement field.

Both take fixed and moving (b, 1, [z,] y, x) of one size, already aligned globally, and return
fields in pixels of the input, coarse ones first: pixel x of fixed is found at x + field(x).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from monai.networks.nets import VoxelMorphUNet
from torch import nn
from torch.nn import functional

from retreg.errors import OptionError
from retreg_server.registration.networks.cost_volume import correlations, displacement_bases
from retreg_server.registration.networks.feature_encoder import FeatureEncoder
from retreg_server.registration.networks.local_motion import local_motion
from retreg_server.registration.networks.smooth_proper import SmoothProper, certainty, expected
from retreg_server.registration.numerics.fields import composed, integrated, interpolated, warped
from retreg_server.registration.numerics.volume_features import CHANNELS, mind_ssc

Network = Literal["smoothproper", "voxelmorph"]
SHARPNESS = 10.0  # of the distributions at the start of the training
SQUARINGS = 7
WINDOWS = (3, 7, 13)  # voxels of half the size in which voxelmorph is shown a local motion
FIRST_WEIGHTS = 1e-3
SLOPE = 0.2  # of the leaky rectifiers in MONAI's VoxelMorph


@dataclass(frozen=True)
class FieldArchitecture:
    """All that is needed to build a network: it is stored with its weights.

    dimensions: 2 or 3. width: channels of the first layer. depth: halvings of the size. radii:
    feature pixels that smoothproper looks around at 1/4 and at 1/2 of the size. steps: of its
    layer; 0 leaves the layer out. descriptors: whether it looks at MIND-SSC descriptors instead
    of the images (3-D only). Raises OptionError for values that no network has.
    """

    network: Network
    dimensions: int
    width: int = 16
    depth: int = 4
    radii: tuple[int, int] = (4, 2)
    steps: int = 3
    descriptors: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "radii", tuple(self.radii))
        known = self.network in get_args(Network) and self.dimensions in (2, 3)
        if not known or (self.descriptors and self.dimensions == 2):
            raise OptionError(
                f"The network {self.network!r} in {self.dimensions} dimensions is not known; use "
                f"{', '.join(get_args(Network))} in 2 or 3."
            )
        sizes = 2 <= self.depth <= 6 and 1 <= self.width <= 64 and 0 <= self.steps <= 20
        if not (sizes and all(1 <= radius <= 8 for radius in self.radii)):
            raise OptionError(
                "A width of 1 to 64, a depth of 2 to 6, radii of 1 to 8 and 0 to 20 steps were "
                "expected."
            )

    @property
    def multiple(self) -> int:
        """The sides of the input must be multiples of this."""
        return int(2**self.depth)

    def as_dict(self) -> dict[str, Any]:
        """The values by name, as stored in metadata."""
        return asdict(self)

    def build(self) -> FieldNet:
        """A network with fresh weights."""
        return SmoothProperNet(self) if self.network == "smoothproper" else VoxelMorphNet(self)


def field_net_from_dict(values: Mapping[str, Any]) -> FieldNet:
    """A network with fresh weights from FieldArchitecture.as_dict(). Raises OptionError."""
    try:
        return FieldArchitecture(**values).build()
    except TypeError as error:
        raise OptionError("The architecture has unknown or missing fields.") from error


class SmoothProperNet(nn.Module):
    """Features of both images, correlation, SmoothProper; at 1/4 and then at 1/2 of the size."""

    def __init__(self, architecture: FieldArchitecture) -> None:
        super().__init__()
        self.mixed_precision = False
        self.architecture = architecture
        d = architecture.dimensions
        channels = CHANNELS if architecture.descriptors else 1
        self.encoder = FeatureEncoder(d, channels, architecture.width, architecture.depth)
        self.layers = nn.ModuleList(
            SmoothProper(displacement_bases(d, radius), architecture.steps)
            for radius in architecture.radii
        )
        self.log_sharpness = nn.Parameter(torch.full((2,), math.log(SHARPNESS)))

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor) -> tuple[torch.Tensor, ...]:
        both = torch.cat([fixed, moving])
        if self.architecture.descriptors:
            both = mind_ssc(both)
        with torch.autocast(both.device.type, torch.bfloat16, enabled=self.mixed_precision):
            quarter, half = self.encoder(both)
        fixed_features, moving_features = quarter.float().chunk(2)
        coarse = 4 * self._matched(fixed_features, moving_features, 0)
        fixed_features, moving_features = half.float().chunk(2)
        start = interpolated(coarse, tuple(fixed_features.shape[2:])) / 2
        rest = self._matched(fixed_features, warped(moving_features, start), 1)
        return coarse, 2 * composed(rest, start)

    def _matched(self, fixed: torch.Tensor, moving: torch.Tensor, level: int) -> torch.Tensor:
        """The field in pixels of the features."""
        layer = self.layers[level]
        assert isinstance(layer, SmoothProper)
        costs = correlations(fixed, moving, self.architecture.radii[level])
        p = functional.softmax(self.log_sharpness[level].exp() * costs, dim=1)
        if self.architecture.steps == 0:
            return expected(p, layer.bases)
        return torch.as_tensor(layer(p, certainty(p)))


class VoxelMorphNet(nn.Module):
    """MONAI's VoxelMorph U-Net at 1/2 of the size; its output is a velocity, integrated.

    Balakrishnan et al. 2019; Dalca et al. 2018 for the diffeomorphic variant. With descriptors it
    sees the local motion that they suggest, in place of the images: a network that must first learn
    what any contrast looks like after a move takes a hundred thousand steps.
    """

    def __init__(self, architecture: FieldArchitecture) -> None:
        super().__init__()
        self.mixed_precision = False
        self.architecture = architecture
        width = architecture.width
        seen = 3 * (len(WINDOWS) + 1) if architecture.descriptors else 2
        channels = [width, width] + [2 * width] * (2 * architecture.depth - 4)
        self.backbone = VoxelMorphUNet(
            architecture.dimensions, seen, width, channels, final_conv_channels=(width,)
        )
        # Without this the signal fades from layer to layer, as there is no normalisation, and the
        # network learns next to nothing in its first thousand steps (He et al. 2015).
        for name, value in self.backbone.named_parameters():
            if "final_conv_out" in name:  # VoxelMorph starts close to the identity
                nn.init.normal_(value, std=FIRST_WEIGHTS)
            elif value.ndim > 1:
                nn.init.kaiming_normal_(value, SLOPE)
            else:
                nn.init.zeros_(value)

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.autocast(fixed.device.type, torch.bfloat16, enabled=self.mixed_precision):
            velocity = self.backbone(self._shown(fixed, moving))
        return (2 * integrated(velocity.float(), SQUARINGS),)

    def _shown(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """What the backbone sees at half the size: the images, or how they seem to have moved."""
        pool = functional.avg_pool2d if fixed.ndim == 4 else functional.avg_pool3d
        if not self.architecture.descriptors:
            return pool(torch.cat([moving, fixed], dim=1), 2)
        fixed_features, moving_features = (pool(mind_ssc(image), 2) for image in (fixed, moving))
        far = local_motion(pool(fixed_features, 2), pool(moving_features, 2), WINDOWS[1:2])
        near = local_motion(fixed_features, moving_features, WINDOWS)
        return torch.cat([2 * interpolated(far, tuple(near.shape[2:])), near], dim=1)


FieldNet = SmoothProperNet | VoxelMorphNet
