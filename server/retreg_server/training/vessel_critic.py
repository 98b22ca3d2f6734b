"""The perceptual network φ of segreg-fundus: a small critic of the style of vessel maps.

Zhang et al. 2019 use a network that was trained on a million photographs of other things. This one
learns from vessel maps alone: the Gram matrices of its features are to bring right maps of every
camera together, and to hold maps apart that are damaged in one of eleven ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from retreg_server.training.checkpoints import load_weights, save_weights
from retreg_server.training.damaged_vessels import damaged, possible_damages
from retreg_server.training.plate_views import PlateView, filled_frame, view_at
from retreg_server.training.segreg_pictures import Plate

WIDTHS = (8, 16, 24, 32)
STEPS, RATE = 1000, 2e-3
TARGETS, RIGHT, WRONG = 3, 3, 4  # maps per step
SHARPNESS = 4.0  # of the comparison of distances, as logarithms
SMALLEST = 1e-8


class VesselCritic(nn.Module):
    """Features of maps (b, 1, y, x) at four depths, halved in size from one to the next."""

    def __init__(self) -> None:
        super().__init__()
        before = (1, *WIDTHS[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(narrow, wide, 3, padding=1), nn.ReLU(),
                nn.Conv2d(wide, wide, 3, padding=1), nn.ReLU(),
            )
            for narrow, wide in zip(before, WIDTHS, strict=True)
        )  # fmt: skip

    def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = []
        for index, stage in enumerate(self.stages):
            maps = stage(functional.avg_pool2d(maps, 2) if index else maps)
            features.append(maps)
        return tuple(features)


Grams = tuple[torch.Tensor, ...]


def gram_matrices(perceptual: nn.Module, maps: torch.Tensor) -> Grams:
    """Equation 1: G_j(I)_ik = mean(φ_j(I)_i · φ_j(I)_k) / c_j, each (b, c_j, c_j).

    perceptual: any network that answers maps (b, 1, y, x) with features (b, c_j, y_j, x_j).
    """
    grams = []
    for features in perceptual(maps):
        flat = features.flatten(2)
        grams.append(flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2]))
    return tuple(grams)


def style_distance(first: Grams, second: Grams) -> torch.Tensor:
    """Equation 2, summed over j: ||G_j(I_1) - G_j(I_2)||²_F, of each map (b,).

    Relative to ||G_j(I_2)||²_F, so that no depth outweighs the others whatever φ is.
    """
    terms = [
        (a - b).square().sum(dim=(1, 2)) / b.square().sum(dim=(1, 2)).clamp_min(SMALLEST)
        for a, b in zip(first, second, strict=True)
    ]
    return torch.stack(terms).mean(dim=0)


def mean_style(perceptual: nn.Module, maps: Sequence[torch.Tensor]) -> Grams:
    """The mean Gram matrices (1, c_j, c_j) of maps (1, 1, y, x) of any sizes: a style target."""
    each = [gram_matrices(perceptual, one) for one in maps]
    return tuple(torch.stack(layer).mean(dim=0) for layer in zip(*each, strict=True))


def separation(
    perceptual: nn.Module,
    target: Grams,
    right: Sequence[torch.Tensor],
    wrong: Sequence[torch.Tensor],
) -> float:
    """How often (0 to 1) a wrong map is further from the target than a right one, of all pairs."""
    with torch.no_grad():
        near, far = (
            torch.cat([style_distance(gram_matrices(perceptual, one), target) for one in maps])
            for maps in (right, wrong)
        )
    return float((far[None] > near[:, None]).float().mean())


def trained_critic(stored: Path, plates: list[Plate], seed: int, device: str) -> VesselCritic:
    """The critic of that seed, frozen; kept in the file stored (.safetensors).

    Training it takes minutes and shows a progress bar. Raises FileError when the file is damaged.
    """
    torch.manual_seed(seed)
    critic = VesselCritic()
    if stored.exists():
        load_weights(stored, critic)
        return critic.to(device).requires_grad_(False)
    critic.to(device)
    optimiser = torch.optim.Adam(critic.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    for step in tqdm(range(STEPS), "training the critic", unit="step", mininterval=5):
        generator = torch.Generator(device).manual_seed(seed * 1_000_003 + step)
        loss = _comparison(critic, plates, generator)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    save_weights(stored, critic)
    return critic.requires_grad_(False)


def _comparison(
    critic: VesselCritic, plates: list[Plate], generator: torch.Generator
) -> torch.Tensor:
    """Logistic loss of the logarithms of distances: right maps nearer to the target than wrong."""
    cameras = sorted({plate.camera for plate in plates})
    by_camera = [[p for p in plates if p.camera == camera] for camera in cameras]
    style = by_camera[drawn(len(cameras), generator)]
    targets = [_filled_view(style, generator).layer("vessels") for _ in range(TARGETS)]
    views = [
        _filled_view(by_camera[drawn(len(cameras), generator)], generator)
        for _ in range(RIGHT + WRONG)
    ]
    wrong = []
    for view in views[RIGHT:]:
        kinds = possible_damages(view)
        wrong.append(damaged(view, kinds[drawn(len(kinds), generator)], generator))
    maps = torch.cat([*targets, *(view.layer("vessels") for view in views[:RIGHT]), *wrong])
    grams = gram_matrices(critic, maps)
    target = tuple(each[:TARGETS].mean(dim=0, keepdim=True) for each in grams)
    distances = style_distance(grams, target)[TARGETS:].clamp_min(SMALLEST).log()
    near, far = distances[:RIGHT], distances[RIGHT:]
    return functional.softplus(SHARPNESS * (near[:, None] - far[None])).mean()


def _filled_view(plates: list[Plate], generator: torch.Generator) -> PlateView:
    """A random view of one of the plates that lies in the field of view for the most part."""
    plate = plates[drawn(len(plates), generator)]
    return view_at(plate, filled_frame(plate, generator))


def drawn(count: int, generator: torch.Generator) -> int:
    """A number from 0 to count - 1."""
    return int(torch.randint(0, count, (), generator=generator, device=generator.device))
