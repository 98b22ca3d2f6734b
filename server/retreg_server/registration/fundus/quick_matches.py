"""How many features of two pictures agree on one map: told in a small share of a registration."""

from __future__ import annotations

from dataclasses import dataclass

from retreg.image import Image
from retreg_server.registration.fundus.features import ransac_affine
from retreg_server.registration.fundus.global_alignment import TOLERANCE
from retreg_server.registration.fundus.learned_features import best_methods
from retreg_server.registration.fundus.prepared_picture import PreparedPicture, prepared_picture
from retreg_server.registration.preprocessing.retina_picture import retina_picture

DIAMETER = 768
_SEED = 1


@dataclass(frozen=True, eq=False)
class QuickMatcher:
    """A picture whose features are found once and matched to those of many others."""

    picture: PreparedPicture

    @classmethod
    def of(cls, image: Image) -> QuickMatcher:
        """Raises EmptyImageError for a picture that is blank or shows no vessels."""
        return cls(prepared_picture(retina_picture(image, "view", DIAMETER), "view"))

    def agreeing(self, other: QuickMatcher) -> int:
        """How many matches agree on one affine map from this picture to the other one."""
        method = best_methods()[0]
        forward, _ = method.match(self.picture.features(method), other.picture.features(method))
        fit = ransac_affine(forward, TOLERANCE, _SEED)
        return 0 if fit is None else fit.count
