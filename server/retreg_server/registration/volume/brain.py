"""The default model for heads and brains: as any volume, and with the keypoints of a network.

Where the search is in doubt, or when its keypoints are asked for, KeyMorph's maps are tried too.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from retreg.image import Image
from retreg.messages import ModelInfo, Scalar
from retreg.transforms import Affine
from retreg_server.registration.keymorph.initial_maps import (
    KEYPOINTS,
    correspondences_if_wanted,
    no_suggestions,
    suggestions,
)
from retreg_server.registration.model import Estimate, Stages
from retreg_server.registration.volume.auto import (
    CITATION,
    FAMILIES,
    PHASE_ENCODING,
    TRANSFORM,
    family_of,
    registered,
)


class AutoBrain:
    """Registration of two brain or head volumes."""

    info = ModelInfo(
        name="auto-brain",
        title="Brain, automatic (any contrast, any rotation)",
        kinds=("volume",),
        subject="head",
        produces=tuple(FAMILIES),
        options=(TRANSFORM, PHASE_ENCODING, KEYPOINTS),
        citation=CITATION,
    )

    def load(self) -> None:
        """Nothing is read: the network is loaded when it is needed."""

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], stages: Stages
    ) -> Estimate:
        """See Model.estimate. Raises RegistrationError when an image shows no object.

        With keypoints = network, also OptionError or FileError when its weights cannot be used.
        """
        family = family_of(options)
        seen = correspondences_if_wanted(options["keypoints"], fixed, moving, stages, 0.05)
        advice = seen.suggestions if seen else partial(suggestions, fixed, moving)
        suggest = partial(advice, family.linear)
        estimate = registered(fixed, moving, family, suggest, stages)
        return seen.described(estimate) if seen else estimate

    def estimate_near(
        self,
        initial: Affine,
        fixed: Image,
        moving: Image,
        options: Mapping[str, Scalar],
        stages: Stages,
    ) -> Estimate:
        """See GuidedModel.estimate_near; keypoints of a network, if wanted, only describe."""
        family = family_of(options)
        seen = correspondences_if_wanted(options["keypoints"], fixed, moving, stages, 0.05)
        estimate = registered(fixed, moving, family, no_suggestions, stages, initial)
        return seen.described(estimate) if seen else estimate
