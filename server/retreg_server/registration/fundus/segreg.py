"""Joint segmentation of vessels and deformable registration (Zhang et al. 2019, ICIP)."""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING

from retreg.image import Image
from retreg.messages import ModelInfo
from retreg_server.registration.fundus.field_model import FAMILIES, FieldModel
from retreg_server.registration.fundus.pixel_maps import QuadraticMap
from retreg_server.registration.fundus.prepared_picture import PreparedPicture
from retreg_server.registration.fundus.vessel_pyramid import PixelDisplacement
from retreg_server.registration.networks.weights import load_metadata, load_network
from retreg_server.registration.options import field_options

if TYPE_CHECKING:
    import torch

    from retreg_server.registration.networks.segreg_net import SegRegNet


class SegRegNetwork:
    """The network, which looks at the pictures in even light."""

    @cached_property
    def net(self) -> SegRegNet:
        """Read when it is first needed."""
        from retreg_server.registration.networks.segreg_net import segreg_net_from_dict

        return load_network("segreg-fundus", segreg_net_from_dict)[0]

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
        from retreg_server.registration.fundus.segreg_views import joint_field

        return joint_field(self.net, fixed, moving, mapped, device)


class SegReg(FieldModel):
    """The model, which also segments single pictures (SegmentationModel)."""

    network: SegRegNetwork

    def vessels(self, image: Image) -> Image:
        """See SegmentationModel.vessels."""
        from retreg_server.registration.fundus.segreg_views import vessel_probability

        return vessel_probability(self.network.net, image)


@cache
def segreg_fundus() -> SegReg:
    """The model for pictures of the retina of any kind."""
    info = ModelInfo(
        name="segreg-fundus",
        title="Retina, joint vessel segmentation",
        kinds=("picture",),
        subject="retina",
        produces=FAMILIES,
        options=field_options(FAMILIES),
        citation="Zhang et al. 2019, ICIP (joint vessel segmentation and deformable registration)",
        weights_sha256=load_metadata("segreg-fundus").sha256,
    )
    return SegReg(info, SegRegNetwork())
