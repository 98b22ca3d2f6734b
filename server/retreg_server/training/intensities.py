"""Random image effects that say nothing about anatomy: blur, bias, gamma, noise, missing parts."""

from __future__ import annotations

import math

import torch

from retreg_server.training.warps import smooth_noise


def chance(probability: float, generator: torch.Generator) -> bool:
    """True with that probability."""
    return between(0.0, 1.0, generator) < probability


def between(low: float, high: float, generator: torch.Generator) -> float:
    """A number drawn evenly between low and high."""
    drawn = torch.rand((), generator=generator, device=generator.device)
    return low + (high - low) * float(drawn)


def blurred(image: torch.Tensor, sigmas: list[float]) -> torch.Tensor:
    """Gaussian blur of (1, 1, [z,] y, x) by one sigma in pixels per axis, edges mirrored."""
    for axis, sigma in enumerate(sigmas):
        if sigma < 0.2:
            continue
        radius = max(1, math.ceil(2.5 * sigma))
        offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
        kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        kernel = kernel / kernel.sum()
        length = image.shape[axis + 2]
        padded = image.movedim(axis + 2, 0)
        padded = torch.cat(
            [padded[:1].expand(radius, *padded.shape[1:]), padded,
             padded[-1:].expand(radius, *padded.shape[1:])]
        )  # fmt: skip
        total = kernel[0] * padded[:length]
        for shift in range(1, 2 * radius + 1):
            total = total.add(padded[shift : shift + length], alpha=float(kernel[shift]))
        image = total.movedim(0, axis + 2)
    return image


def biased(image: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Multiplied by a smooth field whose logarithm has that standard deviation."""
    field = smooth_noise(1, 4, tuple(image.shape[2:]), generator)
    return image * torch.exp(strength * field)


def noisy(image: torch.Tensor, deviation: float, generator: torch.Generator) -> torch.Tensor:
    """With white noise; the magnitude is taken, as in MRI (Rician noise)."""
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    return (image + deviation * noise).abs()


def cut_off(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Zero beyond a random plane (line in 2-D) that leaves at least two thirds of the extent."""
    d = image.ndim - 2
    normal = torch.randn(d, generator=generator, device=image.device)
    normal = normal / normal.norm()
    position = torch.zeros((), device=image.device)
    for axis in range(d):
        n = image.shape[axis + 2]
        centres = (2 * torch.arange(n, device=image.device) + 1) / n - 1
        position = position + normal[axis] * centres.reshape(-1, *(1,) * (d - 1 - axis))
    return image * (position < between(0.25, 0.8, generator))


def random_shapes(count: int, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """A label map (*shape) of count random smooth shapes (Hoffmann et al. 2022, SynthMorph)."""
    points = 4 + int(between(0, 5, generator))
    return smooth_noise(count, points, shape, generator).argmax(dim=1)[0]
