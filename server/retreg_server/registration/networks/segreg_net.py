"""Vessels and displacement of two pictures of a retina at once (Zhang et al. 2019, ICIP).

Two segmentation branches, one for pictures with dark and one for pictures with bright vessels, end
in one shared layer, so that both speak of vessels in the same way; what they see before that layer
goes to a third network that answers with the displacement field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from monai.networks.nets import BasicUNet
from torch import nn
from torch.nn import functional

from retreg.errors import OptionError
from retreg_server.registration.networks.cost_volume import correlations, displacement_bases
from retreg_server.registration.numerics.fields import interpolated

BRANCHES = ("dark", "bright")
STRIDE = 4  # pixels per node of the field (the paper's t = 2 scales below the picture)
MULTIPLE = 64  # the sides of a picture must be multiples of this
FIRST_WEIGHTS = 1e-3


@dataclass(frozen=True)
class SegRegArchitecture:
    """All that is needed to build a network: it is stored with its weights.

    width: channels of the branches at the size of the picture. features: channels that they hand
    on. radius: nodes of the field that are looked around when features are compared. Raises
    OptionError for values that no network has.
    """

    width: int = 8
    features: int = 16
    radius: int = 4

    def __post_init__(self) -> None:
        channels = 2 <= self.width <= 64 and 1 <= self.features <= 128
        if not (channels and 1 <= self.radius <= 8):
            raise OptionError(
                "A width of 2 to 64, 1 to 128 features and a radius of 1 to 8 were expected."
            )

    @property
    def dimensions(self) -> int:
        """Of the images."""
        return 2

    def as_dict(self) -> dict[str, Any]:
        """The values by name, as stored in metadata."""
        return asdict(self)

    def build(self) -> SegRegNet:
        """A network with fresh weights."""
        return SegRegNet(self)


def segreg_net_from_dict(values: Mapping[str, Any]) -> SegRegNet:
    """A network with fresh weights from SegRegArchitecture.as_dict(). Raises OptionError."""
    try:
        return SegRegArchitecture(**values).build()
    except TypeError as error:
        raise OptionError("The architecture has unknown or missing fields.") from error


class SegRegNet(nn.Module):
    """segmented() finds the vessels of one picture, field() compares two.

    Pictures are (b, 1, y, x) as even_light makes them, their sides multiples of MULTIPLE.
    """

    def __init__(self, architecture: SegRegArchitecture) -> None:
        super().__init__()
        self.mixed_precision = False
        self.architecture = architecture
        width, features = architecture.width, architecture.features
        widths = (width, 3 * width // 2, 2 * width, 3 * width, 4 * width, width)
        self.branches = nn.ModuleDict(
            {name: BasicUNet(2, 1, features, widths) for name in BRANCHES}
        )
        self.shared = nn.Conv2d(features, 1, 3, padding=1)
        looks = len(displacement_bases(2, architecture.radius))
        deep = (3 * width, 3 * width, 4 * width, 4 * width, 6 * width, 3 * width)
        self.registration = BasicUNet(2, 2 * features + looks, 2, deep)
        nn.init.normal_(self.registration.final_conv.weight, std=FIRST_WEIGHTS)
        nn.init.zeros_(self.registration.final_conv.bias)

    def segmented(self, picture: torch.Tensor, branch: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (b, features, y, x) of the branch, and probabilities (b, 1, y, x) of vessels."""
        with torch.autocast(picture.device.type, torch.bfloat16, enabled=self.mixed_precision):
            features = self.branches[branch](picture)
            logits = self.shared(functional.relu(features))
        return features.float(), torch.sigmoid(logits.float())

    def field(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """(b, 2, y, x) in pixels, order x, y, from both features: x is found at x + field(x)."""
        return interpolated(self.nodes(fixed, moving), (fixed.shape[2], fixed.shape[3]))

    def nodes(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """The field on nodes that are STRIDE pixels apart.

        The features are averaged over STRIDE pixels, and their correlations (Dosovitskiy et al.
        2015) are shown beside them.
        """
        fixed, moving = (functional.avg_pool2d(each, STRIDE) for each in (fixed, moving))
        with torch.autocast(fixed.device.type, torch.bfloat16, enabled=self.mixed_precision):
            looks = correlations(fixed, moving, self.architecture.radius)
            nodes = self.registration(torch.cat([fixed, moving, looks], dim=1))
        return STRIDE * nodes.float()
