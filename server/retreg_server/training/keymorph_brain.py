"""The recipe of keymorph-brain: keypoints of the head, learned from painted label maps.

No real image is used. Keypoints correspond between people, so that the network is supervised with
points of the label maps that a random warp has moved; their contrast, resolution and surroundings
are random.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch

from retreg.errors import FileError
from retreg_server.registration.networks.keypoint_net import Architecture, KeypointNet
from retreg_server.training.brain_objectives import supervised_loss, unsupervised_loss
from retreg_server.training.brain_samples import (
    HALF_CUBE_MM,
    SPACING_MM,
    VOXELS,
    Sample,
    brain_sample,
)
from retreg_server.training.correspondence import (
    Anatomy,
    corresponding,
    load_anatomies,
    mean_points_mm,
    save_anatomies,
)
from retreg_server.training.export import Bundle
from retreg_server.training.label_maps import read_label_maps
from retreg_server.training.losses import keypoint_loss, weighted_affine_error
from retreg_server.training.real_volumes import RealVolume, rotation_errors
from retreg_server.training.recipe import Recipe, TrainingOrder
from retreg_server.training.warps import WarpRanges

ANGLE = 65.0
RAMP = 0.35  # share of the training after which rotations reach ANGLE
UPRIGHT = 0.35  # share of the samples within a third of the angle
HELD_OUT = 2  # heads that are only painted for validation
VALIDATION_PAIRS = 16
Objective = Literal["keypoints", "unsupervised", "supervised"]


class BrainTask:
    """Samples, loss and validation for the loop. real: images whose errors are only logged."""

    def __init__(
        self,
        anatomies: list[Anatomy],
        architecture: Architecture,
        real: list[RealVolume],
        device: str = "cpu",
        objective: Objective = "keypoints",
    ) -> None:
        self.architecture = architecture
        self._objective = objective
        self._device = device
        self._real = real
        held_out = set(sorted({each.head.name.split("-")[0] for each in anatomies})[-HELD_OUT:])
        kept_back = [each.head.name.split("-")[0] in held_out for each in anatomies]
        self._training = [_on(a, device) for a, held in zip(anatomies, kept_back, strict=True)
                          if not held]
        self._unseen = [a for a, held in zip(anatomies, kept_back, strict=True) if held]
        self._validation = self._pairs(self._unseen)

    def loss(
        self, net: KeypointNet, batch: int, progress: float, generator: torch.Generator
    ) -> torch.Tensor:
        """The objective on a batch of freshly painted heads, or as many pairs of them."""
        angle = ANGLE * (0.25 + 0.75 * min(1.0, progress / RAMP))
        if self._objective != "keypoints":
            pair_loss = supervised_loss if self._objective == "supervised" else unsupervised_loss
            losses = [pair_loss(net, self._training, WarpRanges(angle), generator)
                      for _ in range(batch)]
            return torch.stack(losses).mean()
        drawn = [self._drawn(angle, generator) for _ in range(batch)]
        truth = torch.stack([each.points for each in drawn])
        found = net(torch.cat([each.image for each in drawn]))
        return keypoint_loss(found, truth, (truth.abs() < 1).all(dim=2).float())

    def validation(self, net: KeypointNet) -> dict[str, float]:
        """Median errors in mm on unseen heads: of keypoints, and of the affine of a pair."""
        net.eval()
        keypoints, affines = [], []
        for first, second in self._validation:
            found = net(torch.cat([first.image, second.image]).to(self._device)).on("cpu")
            truth = torch.stack([first.points, second.points])
            keypoints.append((found.points - truth).norm(dim=2).flatten())
            affines.append(weighted_affine_error(found, truth))
        numbers = {
            "error": HALF_CUBE_MM * float(torch.cat(keypoints).median()),
            "affine": HALF_CUBE_MM * float(torch.stack(affines).median()),
            "affine_worst": HALF_CUBE_MM * float(torch.stack(affines).max()),
        }
        numbers |= rotation_errors(net, self._real)
        net.train()
        return numbers

    def _drawn(self, angle: float, generator: torch.Generator) -> Sample:
        index = torch.randint(0, len(self._training), (), generator=generator,
                              device=generator.device)
        upright = torch.rand((), generator=generator, device=generator.device) < UPRIGHT
        ranges = WarpRanges(angle / 3 if upright else angle)
        return brain_sample(self._training[int(index)], ranges, generator)

    def _pairs(self, anatomies: list[Anatomy]) -> list[tuple[Sample, Sample]]:
        generator = torch.Generator().manual_seed(20_000_003)
        return [
            (
                brain_sample(anatomies[index % len(anatomies)], WarpRanges(ANGLE), generator),
                brain_sample(anatomies[index % len(anatomies)], WarpRanges(ANGLE, bend=0.0),
                             generator),
            )
            for index in range(VALIDATION_PAIRS)
        ]


def brain_task(order: TrainingOrder) -> BrainTask:
    """The task from a folder of label maps; correspondences are kept in the folder of the run.

    Real images to look at are head volumes. Raises FileError for folders without what is needed
    and when the folder belongs to another number of keypoints, OptionError for a number that no
    network has.
    """
    architecture = brain_architecture(order.keypoints)
    stored = order.out / "anatomies.npz"
    if not stored.exists():
        heads = read_label_maps(order.folder)
        if len(heads) <= HELD_OUT:
            raise FileError(
                f"The folder {order.folder.name} holds too few label maps ({len(heads)}); at least "
                f"{HELD_OUT + 1} are needed, since {HELD_OUT} are kept back for validation."
            )
        heads += [head.mirrored() for head in heads]
        order.out.mkdir(parents=True, exist_ok=True)
        save_anatomies(stored, corresponding(heads, order.keypoints, order.seed))
    anatomies = _stored_anatomies(order.out, order.keypoints)
    files = sorted(order.look_at.rglob("*.nii.gz")) if order.look_at else []
    volumes = [RealVolume.read(file, VOXELS, SPACING_MM) for file in files]
    objective = cast(Objective, order.objective)
    return BrainTask(anatomies, architecture, volumes, order.device, objective)


def _stored_anatomies(work: Path, keypoints: int) -> list[Anatomy]:
    """The heads of a run with that many keypoints. Raises FileError."""
    stored = work / "anatomies.npz"
    if not stored.exists():
        raise FileError(
            f"The folder {work.name} holds no run of keymorph-brain; name the folder that it was "
            "trained in."
        )
    anatomies = load_anatomies(stored)
    known = len(anatomies[0].points)
    if known != keypoints:
        raise FileError(
            f"The run in {work.name} has {known} keypoints and {keypoints} were asked for; give "
            f"--keypoints {known}, or choose an empty folder."
        )
    return anatomies


def brain_bundle(order: TrainingOrder, recipe: dict[str, Any], hardware: str) -> Bundle:
    """What the card of keymorph-brain says. Raises FileError."""
    anatomies = _stored_anatomies(order.out, order.keypoints)
    return Bundle(
        name="keymorph-brain",
        title="Corresponding keypoints in brain MRI of any contrast, with or without skull",
        architecture=brain_architecture(order.keypoints),
        pixels=VOXELS,
        spacing_mm=SPACING_MM,
        template=mean_points_mm(anatomies) / HALF_CUBE_MM,
        input_rule="a cube of 64 voxels of 3.5 mm around the head along L, P and S; the 1st to "
        "99.5th percentile of every fifth voxel becomes 0 to 1, cut off there",
        error_unit="mm",
        recipe=recipe,
        trained_on=(
            f"{len(anatomies) // 2 - HELD_OUT} label maps of whole heads and their mirror images, "
            "painted at random (SynthSeg's training label maps, Billot et al. 2023, Apache-2.0); "
            f"{HELD_OUT} more were kept back for validation",
            "no real image",
        ),
        hardware=hardware,
    )


def brain_architecture(keypoints: int) -> Architecture:
    """The light network of the recipe, 1.3 million parameters."""
    return Architecture("light", 3, keypoints, width=16)


def _on(anatomy: Anatomy, device: str) -> Anatomy:
    head = replace(anatomy.head, labels=anatomy.head.labels.to(device))
    return Anatomy(head, anatomy.points.to(device))


RECIPE = Recipe(brain_task, brain_bundle)
