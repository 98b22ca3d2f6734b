"""Made-up brain MRI of random contrast, painted on label maps (Billot et al. 2023, SynthSeg)."""

from __future__ import annotations

from functools import cache

import torch

from retreg_server.registration.networks.input_range import normalised
from retreg_server.training.intensities import (
    between,
    biased,
    blurred,
    chance,
    cut_off,
    noisy,
    random_shapes,
)
from retreg_server.training.label_maps import (
    FIRST_OUTSIDE_BRAIN,
    FLUID_OUTSIDE,
    LABELS,
    LEFT_RIGHT,
)

TISSUES = (
    (2, 28, 85, 25),
    (3, 17, 18, 72),
    (10, 11, 12, 13, 26),
    (7,),
    (8,),
    (16,),
    (4, 5, 14, 15, FLUID_OUTSIDE),
)
SHAPES_OUTSIDE = 8


def painted(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """An image (1, 1, z, y, x) from 0 to 1 of a label map (z, y, x) int64."""
    labels = _what_is_shown(labels, generator)
    means, spreads = _contrast(generator)
    smooth = smooth_texture(tuple(labels.shape), generator)
    image = (means[labels] + spreads[labels] * smooth).clamp_min(0)[None, None]
    image = blurred(image, _resolution(generator))
    image = biased(image, between(0, 0.35, generator), generator)
    if chance(0.25, generator):
        image = cut_off(image, generator)
    image = noisy(image, between(0, 0.06, generator), generator)
    image = normalised(image)
    return image ** (2 ** between(-0.8, 0.8, generator))


def smooth_texture(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """White and slightly blurred noise together, of unit strength (*shape)."""
    noise = torch.randn((1, 1, *shape), generator=generator, device=generator.device)
    return (noise + 2 * blurred(noise, [1.0] * len(shape)))[0, 0]


def _what_is_shown(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The whole head, the brain alone, or the brain among random shapes.

    Random shapes get the labels LABELS - SHAPES_OUTSIDE … LABELS - 1.
    """
    if chance(0.45, generator):
        outside = labels >= FIRST_OUTSIDE_BRAIN
        if chance(0.6, generator):
            outside = outside | (labels == FLUID_OUTSIDE)
        return labels.masked_fill(outside, 0)
    if chance(0.3, generator):
        shapes = random_shapes(SHAPES_OUTSIDE, tuple(labels.shape), generator)
        outside = labels >= FIRST_OUTSIDE_BRAIN
        return torch.where(outside, shapes + LABELS - SHAPES_OUTSIDE, labels)
    return labels


def _contrast(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and texture strength (LABELS,) of each label; left and right are equal."""
    device = generator.device
    means = torch.rand(LABELS, generator=generator, device=device)
    if chance(0.65, generator):
        own = torch.randn(LABELS, generator=generator, device=device)
        tissue_means = torch.rand(len(TISSUES), generator=generator, device=device)
        for tissue, mean in zip(TISSUES, tissue_means, strict=True):
            for label in tissue:
                means[label] = mean + 0.06 * own[label]
    spreads = between(0, 0.06, generator) * torch.rand(LABELS, generator=generator, device=device)
    left, right = _left_right()
    means[right], spreads[right] = means[left], spreads[left]
    means[0] = between(0, 0.8, generator) if chance(0.08, generator) else 0.0
    return means, spreads


@cache
def _left_right() -> tuple[torch.Tensor, torch.Tensor]:
    pairs = torch.tensor(LEFT_RIGHT)
    return pairs[:, 0], pairs[:, 1]


def _resolution(generator: torch.Generator) -> list[float]:
    """Blur per axis in voxels; in one of three images one axis has thick slices."""
    sigmas = [between(0.3, 0.9, generator)] * 3
    if chance(0.33, generator):
        sigmas[int(between(0, 3, generator))] = between(0.9, 1.7, generator)
    return sigmas
