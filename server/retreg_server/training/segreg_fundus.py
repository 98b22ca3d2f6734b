"""The recipe of segreg-fundus: a critic of vessel maps first, then the joint model.

It learns from made-up eyes, in colour and as angiograms, and from photographs with vessel masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from retreg_server.registration.networks.segreg_net import SegRegArchitecture, SegRegNet
from retreg_server.registration.numerics.fields import interpolated
from retreg_server.registration.preprocessing.even_light import FIELD
from retreg_server.training.export import Bundle
from retreg_server.training.field_losses import endpoint_error
from retreg_server.training.intensities import chance
from retreg_server.training.plate_views import PlateView
from retreg_server.training.recipe import Recipe, TrainingOrder
from retreg_server.training.segreg_losses import Weights, joint_loss
from retreg_server.training.segreg_pairs import SegRegPair, segreg_pair
from retreg_server.training.segreg_pictures import Plate, lone_masks, made_up_plates, real_plates
from retreg_server.training.vessel_critic import Grams, drawn, mean_style, trained_critic

NAME, CRITIC = "segreg-fundus", "critic.safetensors"
MADE_UP, UNSEEN = 40, 8
REAL_SHARE = 0.5  # of the pairs
VALIDATION_SEED, VALIDATION_PAIRS = 20_000_011, 16
VESSEL = 0.5  # probability from which a pixel counts as a vessel


@dataclass(frozen=True, eq=False)
class SegRegTask:
    """What the loop trains. perceptual: φ. style: its Gram matrices of right vessel maps."""

    architecture: SegRegArchitecture
    made_up: list[Plate]
    real: list[Plate]
    perceptual: nn.Module
    style: Grams
    unseen: tuple[SegRegPair, ...]
    weights: Weights

    def loss(
        self, net: SegRegNet, batch: int, progress: float, generator: torch.Generator
    ) -> torch.Tensor:
        """The objective on batch fresh pairs; progress is not used."""
        del progress
        losses = []
        for _ in range(batch):
            plates = self.real if chance(REAL_SHARE, generator) else self.made_up
            pair = segreg_pair(plates[drawn(len(plates), generator)], generator)
            losses.append(joint_loss(net, pair, self.perceptual, self.style, self.weights))
        return torch.stack(losses).mean()

    @torch.no_grad()
    def validation(self, net: SegRegNet) -> dict[str, float]:
        """Mean endpoint error in pixels before and after, and Dice of the vessels, unseen pairs."""
        net.eval()
        errors, before, overlaps = [], [], []
        for pair in self.unseen:
            seen = [
                net.segmented(pair.pictures[n : n + 1], branch)
                for n, branch in enumerate(pair.branches)
            ]
            field = net.field(seen[0][0], seen[1][0])
            truth, known = pair.fields[:1], pair.seen[:1]
            half = interpolated(field, (truth.shape[2], truth.shape[3]))
            errors.append(float(endpoint_error(half, truth, known)))
            before.append(float(endpoint_error(torch.zeros_like(half), truth, known)))
            vessels = torch.cat([probability for _, probability in seen]) * pair.inside
            overlaps.append(float(dice(vessels > VESSEL, pair.vessels > VESSEL)))
        net.train()
        count = len(self.unseen)
        return {
            "error": sum(errors) / count,
            "error_before": sum(before) / count,
            "vessel_dice": sum(overlaps) / count,
        }


def dice(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Dice of two masks (equation 8)."""
    return 2 * (first & second).sum() / (first.sum() + second.sum()).clamp_min(1)


def segreg_task(order: TrainingOrder) -> SegRegTask:
    """The task from a folder of photographs and vessel masks; plates and critic are kept in out."""
    order.out.mkdir(parents=True, exist_ok=True)
    made = made_up_plates(order.out / "plates.npz", 1000 * order.seed, MADE_UP + UNSEEN)
    made_up = [plate.on(order.device) for plate in made[:MADE_UP]]
    real = [plate.on(order.device) for plate in real_plates(order.folder)]
    masks = [*real, *(plate.on(order.device) for plate in lone_masks(order.folder))]
    critic = trained_critic(
        order.out / CRITIC, [*made_up, *masks], order.seed, order.device
    )
    style = style_of_cameras(critic, [*made_up, *masks])
    generator = torch.Generator(order.device).manual_seed(VALIDATION_SEED)
    held = [plate.on(order.device) for plate in made[MADE_UP:]]
    unseen = tuple(
        segreg_pair(held[number % UNSEEN], generator) for number in range(VALIDATION_PAIRS)
    )
    return SegRegTask(SegRegArchitecture(), made_up, real, critic, style, unseen, Weights())


def style_of_cameras(perceptual: nn.Module, plates: list[Plate]) -> Grams:
    """The mean over all cameras, which count alike, of the style of their vessel maps."""
    cameras = sorted({plate.camera for plate in plates})
    each = [
        mean_style(
            perceptual,
            [PlateView(one.layers).layer("vessels") for one in plates if one.camera == camera],
        )
        for camera in cameras
    ]
    return tuple(torch.stack(layer).mean(dim=0) for layer in zip(*each, strict=True))


def _bundle(_order: TrainingOrder, recipe: dict[str, Any], hardware: str) -> Bundle:
    return Bundle(
        name=NAME,
        title="Vessels of two pictures of a retina and the local displacement between them",
        architecture=SegRegArchitecture(),
        pixels=FIELD,
        spacing_mm=None,
        input_rule="even light (preprocessing/even_light.py): the green channel of the field of "
        f"view at {FIELD} pixels, minus its local mean, in units of three local deviations, cut "
        "off at -1 and 1; pictures with dark and with bright vessels have a branch each",
        error_unit=f"pixels, {FIELD} of which are the field of view; vessel_dice is a ratio",
        recipe={name: value for name, value in recipe.items() if name != "keypoints"},
        trained_on=(
            f"{MADE_UP} made-up eyes in colour and as angiograms; {UNSEEN} more were kept back for "
            "validation",
            "photographs and masks of CHASE_DB1 (20, Owen et al. 2009) and, for the style only, "
            "vessel masks of HRF (15, Budai et al. 2013), CC BY 4.0 by their owners' statement",
        ),
        hardware=hardware,
        beside=(CRITIC,),
    )


RECIPE = Recipe(segreg_task, _bundle)
