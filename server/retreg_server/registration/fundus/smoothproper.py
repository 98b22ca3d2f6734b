"""SmoothProper: a network whose last layer smooths the field it finds (Zhang et al., IPMI 2025)."""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING

from retreg.messages import ModelInfo
from retreg_server.registration.fundus.field_model import FAMILIES, FieldModel
from retreg_server.registration.fundus.pixel_maps import QuadraticMap
from retreg_server.registration.fundus.prepared_picture import PreparedPicture
from retreg_server.registration.fundus.vessel_pyramid import PixelDisplacement
from retreg_server.registration.networks.weights import load_metadata, load_network
from retreg_server.registration.options import SMOOTHPROPER, field_options

if TYPE_CHECKING:
    import torch

    from retreg_server.registration.networks.field_net import FieldNet


class SmoothProperNetwork:
    """The network, which looks at the vessel maps."""

    @cached_property
    def net(self) -> FieldNet:
        """Read when it is first needed."""
        from retreg_server.registration.networks.field_net import field_net_from_dict

        return load_network("smoothproper-fundus", field_net_from_dict)[0]

    def load(self) -> None:
        """Read the network."""
        _ = self.net

    def displacement(
        self,
        fixed: PreparedPicture,
        moving: PreparedPicture,
        mapped: QuadraticMap,
        device: torch.device,
    ) -> PixelDisplacement:
        """See FieldNetwork.displacement."""
        from retreg_server.registration.fundus.network_field import vessel_field

        return vessel_field(self.net, fixed.levels[-1], moving.levels[-1], mapped, device)


@cache
def smoothproper_fundus() -> FieldModel:
    """The model for pictures of the retina of any kind."""
    info = ModelInfo(
        name="smoothproper-fundus",
        title="Retina, SmoothProper",
        kinds=("picture",),
        subject="retina",
        produces=FAMILIES,
        options=field_options(FAMILIES),
        citation=SMOOTHPROPER,
        weights_sha256=load_metadata("smoothproper-fundus").sha256,
    )
    return FieldModel(info, SmoothProperNetwork())
