"""What KeyMorph sees in two images, for models that register by other means.

Its maps are tried beside those of the model, and its keypoints can be the ones that are returned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from retreg.errors import OptionError
from retreg.image import Image
from retreg.messages import Keypoints
from retreg.transforms import Transform
from retreg_server.registration.base import Estimate, Stopwatch
from retreg_server.registration.keymorph import INLIER, size_mm
from retreg_server.registration.keymorph_candidates import (
    OPTIONS,
    candidates_of,
    installed_keymorph,
)
from retreg_server.registration.keymorph_suggestions import Maps
from retreg_server.registration.keypoint_matching import Match
from retreg_server.registration.robust_fit import Linear, trust


@dataclass(frozen=True, eq=False)
class NetworkView:
    """Corresponding keypoints from the fixed to the moving image, and back from a second look.

    Each has the most likely match of views first.
    """

    ahead: list[Match]
    back: list[Match]

    @classmethod
    def of(cls, fixed: Image, moving: Image, tick: Callable[[float], None]) -> NetworkView:
        """Look at both images twice; tick is called with the fraction that is done.

        Raises OptionError when no weights are installed, FileError when they cannot be used, and
        RegistrationError when an image shows nothing.
        """
        model = installed_keymorph(fixed)
        if model is None:
            kind = "fundus" if fixed.is_picture else "brain"
            raise OptionError(
                f"keypoints = network needs the weights of keymorph-{kind}, which are not "
                "installed; use keypoints = matched."
            )
        tick(0.0)
        ahead = model.matched(fixed, moving, OPTIONS, Stopwatch(), again=False)
        tick(0.5)
        return cls(ahead, model.matched(moving, fixed, OPTIONS, Stopwatch(), again=True))

    def suggestions(self, family: Linear, in_doubt: bool) -> tuple[Maps, Maps]:
        """The maps of the family there and back, whether or not they are needed."""
        del in_doubt
        return candidates_of(self.ahead, family), candidates_of(self.back, family)

    def described(self, estimate: Estimate) -> Estimate:
        """The estimate with the network's keypoints in place of its own.

        Fixed points are where the network saw them in the fixed image. The transform takes them to
        the moving points, so that a fit to the pairs gives the transform again. How far from there
        the network saw them in the moving image decides on their weights (1 at no distance, a
        quarter at INLIER of the size of the point set) and inlier states. Of the matches of views
        the one that the transform supports best is taken.
        """
        transform = estimate.transform
        match = max(self.ahead, key=lambda match: np.average(
            trust(_missed(match, transform)), weights=match.weights))
        missed = _missed(match, transform)
        weights, inliers = trust(missed), missed < 1
        residual_mm = float(np.median(missed)) * INLIER * size_mm(match.moving)
        return replace(
            estimate,
            fixed_keypoints=Keypoints(match.fixed, weights, inliers),
            moving_keypoints=Keypoints(transform(match.fixed), weights, inliers),
            evidence={**estimate.evidence, "network_residual_mm": residual_mm},
        )


def _missed(match: Match, transform: Transform) -> np.ndarray:
    """(k,) distances of the transform from what the network saw; 1 is as far as inliers go."""
    distances = np.linalg.norm(transform(match.fixed) - match.moving, axis=1)
    missed: np.ndarray = distances / (INLIER * size_mm(match.moving))
    return missed
