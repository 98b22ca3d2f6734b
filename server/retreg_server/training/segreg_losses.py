"""The objective of segreg-fundus: segmentation by style, registration by content.

Equations are numbered as in Zhang et al. 2019 (ICIP). φ, the perceptual network, is an argument;
the terms of what is known of the pairs are not in the paper and have the weight 0 in PAPER.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from monai.losses import DiceLoss, SSIMLoss
from torch import nn
from torch.nn import functional

from retreg_server.registration.networks.segreg_net import SegRegNet
from retreg_server.registration.numerics.fields import interpolated, warped
from retreg_server.training.field_losses import endpoint_error
from retreg_server.training.segreg_pairs import SegRegPair
from retreg_server.training.vessel_critic import Grams, gram_matrices, style_distance


@dataclass(frozen=True)
class Weights:
    """λ1 to λ4 of equation 7, of the style relative to them, and of what is known in addition.

    The paper's own are those of another φ. vessels: of the true vessels. field: of the true field.
    """

    style: float = 0.3
    compare: float = 1.0
    content: float = 1.0
    smooth: float = 0.02
    ssim: float = 0.01
    vessels: float = 1.0
    field: float = 0.1


PAPER = Weights(vessels=0.0, field=0.0)


def joint_loss(
    net: SegRegNet, pair: SegRegPair, perceptual: nn.Module, style: Grams, weights: Weights
) -> torch.Tensor:
    """Equation 7: L_total = Σ_x,j L_style^j + λ1 Σ_x L_compare + λ2 L_content + λ3 L_smooth +
    λ4 L_ssim, the last three in both directions, and the terms of the known truth.

    style: the Gram matrices of right vessel maps.
    """
    features, vessels, loss = [], [], torch.zeros((), device=pair.inside.device)
    for index, branch in enumerate(pair.branches):
        picture, inside, truth = (
            each[index : index + 1] for each in (pair.pictures, pair.inside, pair.vessels)
        )
        if index == 0:  # one of the two, as either may be either: it takes half the time
            upright, probability, turned = both_ways(net, picture, branch)
            loss = loss + 2 * weights.compare * self_comparison(probability, turned, inside)
        else:
            upright, probability = net.segmented(picture, branch)
        probability = probability * inside
        features.append(upright)
        vessels.append(probability)
        distance = style_distance(gram_matrices(perceptual, probability), style)
        loss = loss + weights.style * distance.mean()
        if weights.vessels:
            loss = loss + weights.vessels * vessel_misfit(probability, truth)
    for own, other in ((0, 1), (1, 0)):
        field = net.field(features[own], features[other])
        both = pair.inside[own : own + 1] * warped(pair.inside[other : other + 1], field.detach())
        found = warped(vessels[other], field, "zeros")
        grey = warped(pair.pictures[other : other + 1], field)
        loss = loss + weights.content * content(found, vessels[own], both)
        loss = loss + weights.smooth * total_variation(field)
        loss = loss + weights.ssim * unlikeness(grey, pair.pictures[own : own + 1])
        if weights.field:
            known = pair.fields[own : own + 1], pair.seen[own : own + 1]
            half = known[0].shape[2], known[0].shape[3]
            error = endpoint_error(interpolated(field, half), *known)
            loss = loss + weights.field * error
    return loss


def both_ways(
    net: SegRegNet, picture: torch.Tensor, branch: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features and vessels of a picture (1, 1, y, x), and its vessels when it is shown upside down.

    The last are turned back: rot(H(rot(I))).
    """
    features, vessels = net.segmented(torch.cat([picture, picture.flip(2, 3)]), branch)
    return features[:1], vessels[:1], vessels[1:].flip(2, 3)


def self_comparison(
    vessels: torch.Tensor, turned: torch.Tensor, inside: torch.Tensor
) -> torch.Tensor:
    """Equation 5: MSE(rot(H(rot(I))), H(I)), rot by 180 degrees; it makes both sides of a vessel
    count alike."""
    return functional.mse_loss(turned * inside, vessels * inside)


def content(found: torch.Tensor, vessels: torch.Tensor, both: torch.Tensor) -> torch.Tensor:
    """Equation 3: MSE(STN(I_flt^seg, F), I_ref^seg), where both pictures show something."""
    return ((found - vessels).square() * both).sum() / both.sum().clamp_min(1)


def total_variation(field: torch.Tensor) -> torch.Tensor:
    """Equation 4, smoothness: the mean absolute difference of neighbouring displacements."""
    return field.diff(dim=2).abs().mean() + field.diff(dim=3).abs().mean()


def unlikeness(grey: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
    """Equation 6: 1 - SSIM(STN(I_flt, F), I_ref) of pictures from -1 to 1."""
    similar: torch.Tensor = SSIMLoss(2)((grey + 1) / 2, (picture + 1) / 2)
    return similar


def vessel_misfit(vessels: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross entropy and one minus Dice of vessels, both 0 to 1."""
    overlap: torch.Tensor = DiceLoss()(vessels, truth)
    return functional.binary_cross_entropy(vessels.clamp(1e-6, 1 - 1e-6), truth) + overlap
