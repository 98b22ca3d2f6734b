"""Which of the views of two images belong together: the one that makes the images alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from retreg.quality import normalised_mutual_information
from retreg_server.registration.keymorph.detection import robust_affine
from retreg_server.registration.keymorph.detectors import Look, weights
from retreg_server.registration.networks.centre_of_mass import Weighting
from retreg_server.registration.networks.input_range import normalised

Likeness = Callable[[np.ndarray, np.ndarray], float]
"""Of the values (n,) from 0 to 1 of the fixed image and of the moving one at the same places: more
is better."""
SHOWN = 0.05
VOXELS, PIXELS = 64, 96  # along a side of the images that are compared
LEAST_OVERLAP = 0.1


@dataclass(frozen=True, eq=False)
class Match:
    """Corresponding keypoints (k, 3) in LPS mm with weights (k,), and how alike the images get.

    residual: median distance from an affine map, as a share of the size of the point set.
    """

    fixed: np.ndarray
    moving: np.ndarray
    weights: np.ndarray
    likeness: float
    residual: float

    @property
    def swapped(self) -> Match:
        """The same pairs, seen from the moving image."""
        return Match(self.moving, self.fixed, self.weights, self.likeness, self.residual)


def matches(fixed: Look, moving: Look, weighting: Weighting, likeness: Likeness) -> list[Match]:
    """Every view of the one with every view of the other, the most alike first.

    Views that need a reflection come last.
    """
    still, other = _small(fixed.image), _small(moving.image)
    found = []
    for here in fixed.detections:
        for there in moving.detections:
            pair_weights = weights(here, weighting) * weights(there, weighting)
            matrix, residuals = robust_affine(
                here.points, there.points, torch.from_numpy(pair_weights)
            )
            spread = float(there.points.std(dim=0).norm())
            value = _alike(still, other, matrix, likeness)
            residual = float(residuals.median()) / max(spread, 1e-6)
            found.append(
                Match(fixed.world(here), moving.world(there), pair_weights, value, residual)
            )
    return sorted(found, key=lambda match: -match.likeness)


def _alike(
    still: torch.Tensor, other: torch.Tensor, matrix: torch.Tensor, likeness: Likeness
) -> float:
    """The likeness where the images overlap under a matrix (d, d + 1); -inf when they do not."""
    if torch.linalg.det(matrix[:, :-1]) <= 0:
        return -np.inf
    grid = functional.affine_grid(matrix[None], list(still.shape), align_corners=False)
    inside = (grid.abs() <= 1).all(dim=-1)[:, None]
    if inside.float().mean() < LEAST_OVERLAP:
        return -np.inf
    warped = functional.grid_sample(other, grid, align_corners=False)
    return likeness(still[inside].numpy(), warped[inside].numpy())


def mutual_information(fixed: np.ndarray, warped: np.ndarray) -> float:
    """Normalised mutual information where either image shows something; for any two contrasts."""
    shown = (fixed > SHOWN) | (warped > SHOWN)
    value = normalised_mutual_information(fixed[shown][::3], warped[shown][::3])
    return value if np.isfinite(value) else -np.inf


def correlation(fixed: np.ndarray, warped: np.ndarray) -> float:
    """Of vessel maps."""
    if min(fixed.std(), warped.std()) < 1e-9:
        return -np.inf
    return float(np.corrcoef(fixed, warped)[0, 1])


def _small(image: torch.Tensor) -> torch.Tensor:
    if image.ndim == 5:
        return normalised(functional.avg_pool3d(image, max(1, image.shape[-1] // VOXELS)))
    return normalised(functional.avg_pool2d(image, max(1, image.shape[-1] // PIXELS)))
