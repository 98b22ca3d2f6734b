"""Brain volumes: a global alignment, a network that answers with a field, and a refinement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from retreg.image import Image
from retreg.messages import Keypoints, ModelInfo, Scalar
from retreg.transforms import Affine, Chain
from retreg_server.registration.auto_brain import AutoBrain
from retreg_server.registration.base import Estimate, Stopwatch, linear_matrix
from retreg_server.registration.brain_scene import Scene, View
from retreg_server.registration.devices import chosen_device
from retreg_server.registration.global_starts import (
    affine_estimate,
    field_options,
    keymorph_for,
)
from retreg_server.registration.landmarks import find_landmarks
from retreg_server.registration.nets.field_net import FieldNet
from retreg_server.registration.refine import deform
from retreg_server.registration.volume_field import volume_field
from retreg_server.registration.weights import load_field_net, load_metadata

FAMILIES = ("deformable", "affine")
ALIGNING, NETWORK, REFINING = "global alignment", "network", "refinement"
GLOBAL_SHARE = 0.5  # of the progress


@dataclass(frozen=True, eq=False)
class DeformableBrain:
    """One network in both directions; the field of each is refined on the images by itself."""

    info: ModelInfo

    @cached_property
    def net(self) -> FieldNet:
        """The network, read when it is first needed."""
        return load_field_net(self.info.name)[0]

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], watch: Stopwatch
    ) -> Estimate:
        """See Model.estimate. Raises RegistrationError when an image shows no object."""
        with watch.stage(ALIGNING, 0.02):
            found = _start(str(options["start"]), fixed, moving, watch)
        if options["transform"] == "affine":
            return found
        ahead, back = linear_matrix(found.transform), linear_matrix(found.backward)
        with watch.stage(NETWORK, GLOBAL_SHARE):
            views = View.of(fixed, "fixed"), View.of(moving, "moving")
            metadata = load_metadata(self.info.name)
            cube = metadata.pixels, float(metadata.spacing_mm or 1.0)
            device = chosen_device(str(options["device"]))
            field = volume_field(self.net, *views, ahead, cube, device)
            watch.tick(NETWORK, GLOBAL_SHARE + 0.1)
            other = volume_field(self.net, *views[::-1], back, cube, device)
        forward, backward = Chain((field, Affine(ahead))), Chain((other, Affine(back)))
        evidence = dict(found.evidence)
        if options["refine"]:
            with watch.stage(REFINING, GLOBAL_SHARE + 0.2):
                done = deform(
                    *views, ahead, back, (field, other),
                    lambda share: watch.tick(REFINING, GLOBAL_SHARE + 0.2 + 0.25 * share),
                    (fixed.grid, moving.grid),
                )  # fmt: skip
            forward, backward = done.forward, done.backward
            evidence |= done.evidence
        marks = found.fixed_keypoints
        moved = Keypoints(forward(marks.points), marks.weights, marks.inliers)
        return Estimate(forward, marks, moved, backward, evidence, undeformed=Affine(ahead))


def deformable_brain(name: str, title: str, citation: str) -> DeformableBrain:
    """The model of that name, which is also the name of its weights."""
    return DeformableBrain(
        ModelInfo(
            name=name,
            title=title,
            kinds=("volume",),
            produces=FAMILIES,
            options=field_options(FAMILIES),
            citation=citation,
            weights_sha256=load_metadata(name).sha256,
        )
    )


def _start(name: str, fixed: Image, moving: Image, watch: Stopwatch) -> Estimate:
    """The affine alignment of that name, one of STARTS."""
    if name == "identity":
        return _untouched(fixed, moving)
    model = AutoBrain() if name == "auto" else keymorph_for(fixed)
    share = GLOBAL_SHARE - 0.04
    inner = Stopwatch(lambda _stage, done: watch.tick(ALIGNING, 0.02 + share * done))
    return affine_estimate(model, fixed, moving, inner)


def _untouched(fixed: Image, moving: Image) -> Estimate:
    """Images that are taken to be aligned already."""
    scene = Scene.of(View.of(fixed, "fixed"), View.of(moving, "moving"))
    marks = find_landmarks(scene.levels[1], np.eye(4))
    points = Keypoints(marks.points, marks.similarity, marks.agrees)
    return Estimate(Affine.identity(), points, points, Affine.identity())
