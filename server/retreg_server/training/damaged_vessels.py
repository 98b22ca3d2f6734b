"""Eleven ways in which a vessel map can be wrong; a critic learns to tell them from right ones."""

from __future__ import annotations

import torch
from torch.nn import functional

from retreg_server.training.intensities import between, blurred
from retreg_server.training.plate_views import PlateView
from retreg_server.training.warps import smooth_noise

DAMAGES = (
    "thicker", "blurred", "broken", "false lines", "edges", "main vessels only", "spots", "noise",
    "ridge filter", "grey photograph", "half the field",
)  # fmt: skip


def damaged(view: PlateView, kind: str, generator: torch.Generator) -> torch.Tensor:
    """A wrong map (1, 1, n, n), 0 to 1, of the vessels in view; kind is one of DAMAGES."""
    vessels = view.layer("vessels")
    size = tuple(vessels.shape[2:])
    if kind == "thicker":
        width = 3 + 2 * int(between(0, 2, generator))
        return functional.max_pool2d(vessels, width, 1, width // 2)
    if kind == "blurred":
        return blurred(vessels, [between(2.0, 4.0, generator)] * 2)
    if kind == "broken":
        gaps = smooth_noise(1, size[0] // 12, size, generator) > between(-0.3, 0.4, generator)
        return vessels * gaps
    if kind == "false lines":
        return torch.maximum(vessels, _lines(size, generator) * view.layer("inside"))
    if kind == "edges":
        return functional.max_pool2d(vessels, 3, 1, 1) + functional.max_pool2d(-vessels, 3, 1, 1)
    if kind == "main vessels only":
        return _opened(vessels, 5)
    if kind == "spots":
        spots = smooth_noise(1, size[0] // 10, size, generator) > between(1.2, 1.8, generator)
        return torch.maximum(vessels, spots * view.layer("inside"))
    if kind == "noise":
        noise = torch.randn(vessels.shape, generator=generator, device=vessels.device)
        return (vessels + between(0.2, 0.5, generator) * noise).clamp(0, 1)
    if kind == "ridge filter":
        return view.layer("ridges")
    if kind == "grey photograph":
        return 0.5 - 0.5 * view.layer("dark")
    side = (torch.arange(size[1], device=vessels.device) < size[1] // 2).float()
    return vessels * side


def possible_damages(view: PlateView) -> tuple[str, ...]:
    """DAMAGES that can be made: some need the photograph beside the mask."""
    if bool(view.layer("ridges").any()):
        return DAMAGES
    return tuple(kind for kind in DAMAGES if kind not in ("ridge filter", "grey photograph"))


def _lines(size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Thin curves where smooth noise changes its sign."""
    noise = smooth_noise(1, 6 + int(between(0, 8, generator)), size, generator)
    down, across = (torch.gradient(noise, dim=axis)[0] for axis in (2, 3))
    slope = (down.square() + across.square()).sqrt().clamp_min(1e-3)
    return (noise.abs() / slope < between(0.6, 1.5, generator)).float()


def _opened(vessels: torch.Tensor, width: int) -> torch.Tensor:
    """The map without what is narrower than width pixels (grey opening)."""
    eroded = -functional.max_pool2d(-vessels, width, 1, width // 2)
    return functional.max_pool2d(eroded, width, 1, width // 2)
