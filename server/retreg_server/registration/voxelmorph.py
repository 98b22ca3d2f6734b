"""VoxelMorph: a U-Net that answers with a velocity field, which is integrated.

Balakrishnan et al. 2019; Dalca et al. 2018 for the diffeomorphic variant; trained on painted label
maps as in SynthMorph (Hoffmann et al. 2022).
"""

from __future__ import annotations

from functools import cache

from retreg_server.registration.deformable_brain import DeformableBrain, deformable_brain


@cache
def voxelmorph_brain() -> DeformableBrain:
    """The model for brain and head volumes of any contrast."""
    return deformable_brain(
        "voxelmorph-brain",
        "Brain, VoxelMorph",
        "Balakrishnan et al. 2019, IEEE TMI (VoxelMorph); Hoffmann et al. 2022 (SynthMorph)",
    )
