"""Which of the views of two images belong together: the one that makes the images alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from retreg_server.registration.keymorph.detection import irls_affine
from retreg_server.registration.keymorph.detectors import KeypointDetections, weights
from retreg_server.registration.keymorph.similarity import Similarity
from retreg_server.registration.networks.centre_of_mass import Weighting
from retreg_server.registration.networks.input_range import normalised

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
    similarity: float
    residual: float

    @property
    def swapped(self) -> Match:
        """The same pairs, seen from the moving image."""
        return Match(self.moving, self.fixed, self.weights, self.similarity, self.residual)


def matches(
    fixed: KeypointDetections,
    moving: KeypointDetections,
    weighting: Weighting,
    similarity: Similarity,
) -> list[Match]:
    """Every view of the one with every view of the other, the most alike first.

    Views that need a reflection come last.
    """
    fixed_image, moving_image = _small(fixed.image), _small(moving.image)
    found = []
    for fixed_view in fixed.detections:
        for moving_view in moving.detections:
            pair_weights = weights(fixed_view, weighting) * weights(moving_view, weighting)
            matrix, residuals = irls_affine(
                fixed_view.points, moving_view.points, torch.from_numpy(pair_weights)
            )
            spread = float(moving_view.points.std(dim=0).norm())
            value = _similarity(fixed_image, moving_image, matrix, similarity)
            residual = float(residuals.median()) / max(spread, 1e-6)
            found.append(
                Match(
                    fixed.world(fixed_view),
                    moving.world(moving_view),
                    pair_weights,
                    value,
                    residual,
                )
            )
    return sorted(found, key=lambda match: -match.similarity)


def _similarity(
    fixed_image: torch.Tensor,
    moving_image: torch.Tensor,
    matrix: torch.Tensor,
    similarity: Similarity,
) -> float:
    """The similarity where the images overlap under a matrix (d, d + 1); -inf when they do not."""
    if torch.linalg.det(matrix[:, :-1]) <= 0:
        return -np.inf
    grid = functional.affine_grid(matrix[None], list(fixed_image.shape), align_corners=False)
    inside = (grid.abs() <= 1).all(dim=-1)[:, None]
    if inside.float().mean() < LEAST_OVERLAP:
        return -np.inf
    warped = functional.grid_sample(moving_image, grid, align_corners=False)
    return similarity(fixed_image[inside].numpy(), warped[inside].numpy())


def _small(image: torch.Tensor) -> torch.Tensor:
    if image.ndim == 5:
        return normalised(functional.avg_pool3d(image, max(1, image.shape[-1] // VOXELS)))
    return normalised(functional.avg_pool2d(image, max(1, image.shape[-1] // PIXELS)))
