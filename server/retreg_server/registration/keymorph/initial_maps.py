"""KeyMorph's part in models that register by other means: further maps, and keypoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from retreg.image import Image
from retreg.messages import Option, Scalar
from retreg_server.registration.model import Stages
from retreg_server.registration.numerics.robust_weights import Linear

if TYPE_CHECKING:
    from retreg_server.registration.keymorph.correspondences import KeypointCorrespondences

Maps = list[np.ndarray]
Suggest = Callable[[bool], tuple[Maps, Maps]]
"""Called with whether the model is in doubt; further matrices (4, 4) from the fixed to the moving
world, and back."""
MATCHED, NETWORK = "matched", "network"
KEYPOINTS = Option("keypoints", "Keypoints to return", MATCHED, (MATCHED, NETWORK))


def no_suggestions(_in_doubt: bool) -> tuple[Maps, Maps]:
    """For models that find all that KeyMorph does, or images that it does not know."""
    return [], []


def suggestions(
    fixed: Image, moving: Image, family: Linear, in_doubt: bool
) -> tuple[Maps, Maps]:
    """What KeyMorph finds from the fixed to the moving world and, in a detection of its own, back.

    Empty without doubt, without weights, or where KeyMorph sees nothing.
    """
    if not in_doubt:
        return [], []
    # Most registrations settle without it, and loading the network takes seconds.
    from retreg_server.registration.keymorph.correspondences import keymorph_candidates

    return (
        keymorph_candidates(fixed, moving, family),
        keymorph_candidates(moving, fixed, family, second=True),
    )


def correspondences_if_wanted(
    keypoints: Scalar, fixed: Image, moving: Image, stages: Stages, share: float
) -> KeypointCorrespondences | None:
    """What the network sees, when the option keypoints asks for it; a stage with that share.

    Raises OptionError without weights, FileError when they are damaged, and RegistrationError
    when an image shows nothing to the network.
    """
    if keypoints != NETWORK:
        return None
    from retreg_server.registration.keymorph.correspondences import KeypointCorrespondences

    with stages.stage("detecting keypoints with the network", share):
        return KeypointCorrespondences.of(fixed, moving, stages)
