"""Training of networks that answer with a displacement field: samples, loss and validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from retreg_server.registration.networks.field_net import FieldArchitecture, FieldNet
from retreg_server.registration.numerics.fields import jacobian_determinants
from retreg_server.training.field_losses import endpoint_error, field_loss, misfit
from retreg_server.training.known_pairs import KnownPairs, joined, partners

Draw = Callable[[torch.Generator], KnownPairs]


@dataclass(frozen=True, eq=False)
class FieldTask:
    """What the loop trains. unit: size of a pixel, for the numbers of the validation."""

    architecture: FieldArchitecture
    draw: Draw
    unseen: tuple[KnownPairs, ...]
    unit: float
    device: str = "cpu"

    def loss(
        self, net: FieldNet, batch: int, progress: float, generator: torch.Generator
    ) -> torch.Tensor:
        """The objective on batch fresh pairs, both directions of each; progress is not used."""
        del progress
        pairs = joined([self.draw(generator) for _ in range(batch)])
        return field_loss(net(pairs.images, partners(pairs.images)), pairs)

    @torch.no_grad()
    def validation(self, net: FieldNet) -> dict[str, float]:
        """Mean endpoint error on unseen pairs, before and after; folding; Dice of two people."""
        net.eval()
        errors, before, folding, dice, dice_before = [], [], [], [], []
        for each in self.unseen:
            pairs = each.on(self.device)
            field = net(pairs.images, partners(pairs.images))[-1]
            unmoved = torch.zeros_like(field)
            folding.append((jacobian_determinants(field / 2) <= 0).float().mean())
            if pairs.seen.any():
                errors.append(endpoint_error(field, pairs.fields, pairs.seen))
                before.append(endpoint_error(unmoved, pairs.fields, pairs.seen))
            elif pairs.tissues is not None:
                dice.append(1 - misfit(pairs.tissues, field))
                dice_before.append(1 - misfit(pairs.tissues, unmoved))
        net.train()
        numbers = {
            "error": self.unit * _mean(errors),
            "error_before": self.unit * _mean(before),
            "folding": _mean(folding),
        }
        if dice:
            numbers |= {"dice": _mean(dice), "dice_before": _mean(dice_before)}
        return numbers


def _mean(values: list[torch.Tensor]) -> float:
    return float(torch.stack(values).mean())
