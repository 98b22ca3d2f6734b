"""Brain volumes: a global alignment, a network that answers with a field, and a refinement.

The networks are SmoothProper and VoxelMorph. What needs torch is imported where it is used: it
takes a second to load, and who asks for the description alone does not wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from retreg.image import Image
from retreg.messages import Keypoints, ModelInfo, Scalar
from retreg.transforms import Affine, Chain, DisplacementField
from retreg_server.registration.model import Estimate, Stages, affine_estimate, linear_matrix
from retreg_server.registration.networks.devices import chosen_device
from retreg_server.registration.networks.weights import load_metadata, load_network
from retreg_server.registration.options import SMOOTHPROPER, field_options
from retreg_server.registration.volume.brain import AutoBrain

if TYPE_CHECKING:
    from retreg_server.registration.networks.field_net import FieldNet
    from retreg_server.registration.volume.volume_pair import PreparedVolume

FAMILIES = ("deformable", "affine")


@dataclass(frozen=True, eq=False)
class DeformableBrain:
    """One network in both directions; the field of each is refined on the images by itself."""

    info: ModelInfo

    @cached_property
    def net(self) -> FieldNet:
        """The network, read when it is first needed."""
        from retreg_server.registration.networks.field_net import field_net_from_dict

        return load_network(self.info.name, field_net_from_dict)[0]

    def load(self) -> None:
        """Read the network."""
        _ = self.net

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], stages: Stages
    ) -> Estimate:
        """See Model.estimate. Raises RegistrationError when an image shows no object."""
        from retreg_server.registration.volume.deformation import deform
        from retreg_server.registration.volume.volume_pair import PreparedVolume

        with stages.stage("global alignment", 0.5):
            found = _start(str(options["start"]), fixed, moving, stages)
        if options["transform"] == "affine":
            return found
        prepared = PreparedVolume.of(fixed, "fixed"), PreparedVolume.of(moving, "moving")
        matrices = linear_matrix(found.transform), linear_matrix(found.backward)
        with stages.stage("network", 0.2):
            fields = self._fields(prepared, matrices, str(options["device"]), stages)
        forward, backward = (Chain((f, Affine(m))) for f, m in zip(fields, matrices, strict=True))
        evidence = dict(found.evidence)
        if options["refine"]:
            with stages.stage("refinement", 0.3):
                grids = fixed.grid, moving.grid
                deformed = deform(*prepared, *matrices, fields, stages, grids)
            forward, backward = deformed.forward, deformed.backward
            evidence |= deformed.evidence
        marks = found.fixed_keypoints
        moved = Keypoints(forward(marks.points), marks.weights, marks.inliers)
        return Estimate(forward, marks, moved, backward, evidence, undeformed=found.transform)

    def _fields(
        self,
        prepared: tuple[PreparedVolume, PreparedVolume],
        matrices: tuple[np.ndarray, np.ndarray],
        device: str,
        stages: Stages,
    ) -> tuple[DisplacementField, DisplacementField]:
        """What the network answers, forward and backward."""
        from retreg_server.registration.volume.network_field import volume_field

        metadata = load_metadata(self.info.name)
        cube = metadata.pixels, float(metadata.spacing_mm or 1.0)
        chosen = chosen_device(device)
        forward = volume_field(self.net, *prepared, matrices[0], cube, chosen)
        stages.at(0.5)
        return forward, volume_field(self.net, *prepared[::-1], matrices[1], cube, chosen)


def deformable_brain(name: str, title: str, citation: str) -> DeformableBrain:
    """The model of that name, which is also the name of its weights."""
    return DeformableBrain(
        ModelInfo(
            name=name,
            title=title,
            kinds=("volume",),
            subject="head",
            produces=FAMILIES,
            options=field_options(FAMILIES),
            citation=citation,
            weights_sha256=load_metadata(name).sha256,
        )
    )


def _start(name: str, fixed: Image, moving: Image, stages: Stages) -> Estimate:
    """The affine alignment of that name, one of STARTS."""
    if name == "identity":
        return _untouched(fixed, moving)
    from retreg_server.registration.keymorph.correspondences import keymorph_for

    model = AutoBrain() if name == "auto" else keymorph_for(fixed)
    return affine_estimate(model, fixed, moving, Stages(lambda _, done: stages.at(done)))


def _untouched(fixed: Image, moving: Image) -> Estimate:
    """Images that are taken to be aligned already."""
    from retreg_server.registration.volume.landmarks import find_landmarks
    from retreg_server.registration.volume.volume_pair import PreparedVolume, VolumePair

    pair = VolumePair.of(PreparedVolume.of(fixed, "fixed"), PreparedVolume.of(moving, "moving"))
    marks = find_landmarks(pair.levels[1], np.eye(4))
    points = Keypoints(marks.points, marks.similarity, marks.agrees)
    return Estimate(Affine.identity(), points, points, Affine.identity())


@cache
def voxelmorph_brain() -> DeformableBrain:
    """The model for brain and head volumes of any contrast."""
    return deformable_brain(
        "voxelmorph-brain",
        "Brain, VoxelMorph",
        "Balakrishnan et al. 2019, IEEE TMI (VoxelMorph); Hoffmann et al. 2022 (SynthMorph)",
    )


@cache
def smoothproper_brain() -> DeformableBrain:
    """The model for brain and head volumes of any contrast."""
    return deformable_brain("smoothproper-brain", "Brain, SmoothProper", SMOOTHPROPER)
