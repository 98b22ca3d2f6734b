"""A retinal picture with all that registration computes from it once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from retreg.errors import EmptyImageError
from retreg_server.registration.fundus.features import Features, Method
from retreg_server.registration.fundus.rotation_scale_search import SearchedMap
from retreg_server.registration.fundus.vessel_pyramid import VesselPyramidLevel, pyramid
from retreg_server.registration.preprocessing.retina_picture import Picture
from retreg_server.registration.preprocessing.vesselness import VesselMaps, vessel_maps

FACTORS = (4, 2, 1)


@dataclass(frozen=True, eq=False)
class PreparedPicture:
    """One picture with all that is computed from it once."""

    picture: Picture
    maps: VesselMaps
    polarity: int = 0  # 0: the map of the stronger ridges, 1: the other one

    @property
    def vessels(self) -> np.ndarray:
        return self.maps.strongest_first[self.polarity]

    def features(self, method: Method) -> Features:
        """What the method finds on the vessels."""
        if method not in self._features:
            self._features[method] = method.detect(self.vessels, self.maps.valid)
        return self._features[method]

    @cached_property
    def _features(self) -> dict[Method, Features]:
        return {}

    @cached_property
    def levels(self) -> list[VesselPyramidLevel]:
        return pyramid(self.vessels, self.maps.valid, FACTORS)

    @cached_property
    def searched(self) -> SearchedMap:
        return SearchedMap(self.vessels, self.maps.valid)


def prepared_picture(picture: Picture, role: str, field: int = 0) -> PreparedPicture:
    """A picture with the vessels that it shows. Raises EmptyImageError when there are none.

    field: pixels along the longer side of a whole field, where the picture is a part of one.
    """
    maps = vessel_maps(picture.grey, picture.inside, field)
    if not all(vessels.any() for vessels in maps.strongest_first):
        raise EmptyImageError(
            f"The {role} picture shows no blood vessels; give a picture of the retina."
        )
    return PreparedPicture(picture, maps)
