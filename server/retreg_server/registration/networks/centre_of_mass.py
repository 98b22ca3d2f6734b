"""From heat-maps to points: the centre of mass, how strong it is, and how spread out.

Coordinates are normalised from -1 to 1 edge to edge (align_corners=False) in the order x, y(, z)
of the last tensor axis first, as torch's grid_sample takes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Weighting = Literal["none", "power", "variance"]
TINY = 1e-6


@dataclass(frozen=True, eq=False)
class HeatMapPoints:
    """What k heat-maps say: points (b, k, d), energy (b, k) and variance (b, k).

    energy: sum of the positive part of the map. variance: mean squared distance of the map's mass
    from its centre, averaged over the d axes, in squared normalised units.
    """

    points: torch.Tensor
    energy: torch.Tensor
    variance: torch.Tensor

    def on(self, device: torch.device | str) -> HeatMapPoints:
        """The same on another device."""
        return HeatMapPoints(*(x.to(device) for x in (self.points, self.energy, self.variance)))

    def weights(self, weighting: Weighting) -> torch.Tensor:
        """Weights (b, k) of mean 1: all equal, the energy, or one over the variance.

        Source: the weightings of KeyMorph (Wang et al. 2023).
        """
        if weighting == "none":
            return torch.ones_like(self.energy)
        raw = self.energy if weighting == "power" else 1 / self.variance.clamp_min(TINY)
        return raw / raw.mean(dim=1, keepdim=True).clamp_min(TINY)


def centre_of_mass(maps: torch.Tensor) -> HeatMapPoints:
    """The centre of mass of the positive part of each map (b, k, [z,] y, x), at pixel centres.

    p_k = sum_x x relu(h_k(x)) / sum_x relu(h_k(x)), KeyMorph's keypoints (Wang et al. 2023).
    Computed in 32-bit floats whatever the type of the maps. An empty map gives the centre of the
    image with energy 0.
    """
    positive = torch.relu(maps.float())
    energy = positive.flatten(2).sum(dim=2)
    total = energy.clamp_min(TINY)
    means, variances = [], []
    for axis in range(maps.ndim - 1, 1, -1):
        others = [other for other in range(2, maps.ndim) if other != axis]
        profile = positive.sum(dim=others) / total[..., None]
        centres = pixel_centres(maps.shape[axis], maps.device)
        mean = (profile * centres).sum(dim=2)  # no matrix product: autocast would round it
        means.append(mean)
        variances.append((profile * (centres - mean[..., None]) ** 2).sum(dim=2))
    return HeatMapPoints(
        torch.stack(means, dim=2), energy, torch.stack(variances, dim=2).mean(dim=2)
    )


def pixel_centres(count: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Normalised coordinates (count,) of the pixel centres along one axis."""
    return (2 * torch.arange(count, device=device, dtype=torch.float32) + 1) / count - 1
