"""Corresponding points in heads of different people, found from their label maps alone.

Points are spread over the brain of one head and carried to every other head by a smooth map that
brings equal labels together. It is computed once before training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from retreg_server.registration.numerics.farthest_points import spread_out
from retreg_server.training.label_maps import (
    FIRST_OUTSIDE_BRAIN,
    FLUID_OUTSIDE,
    HALF_SIDE_MM,
    LEFT_RIGHT,
    MIDLINE,
    VOXELS,
    LabelMap,
)
from retreg_server.training.warps import sample_points

LEAST_VOXELS = 60  # of 2 mm, that a structure must have in a head to be used
CONTROL = 12  # control points along each axis of the map between two heads
STEPS = 150
POINTS_PER_STEP = 12_000
STIFFNESS = 60.0


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A head and the corresponding keypoints (k, 3) in its normalised coordinates."""

    head: LabelMap
    points: torch.Tensor


def corresponding(heads: list[LabelMap], count: int, seed: int) -> list[Anatomy]:
    """Count keypoints in each head; the first head is the one they are spread over.

    It takes a while and shows a progress bar.
    """
    template = heads[0]
    points = spread_points(template, count)
    fields = _soft_labels(template)
    found = [Anatomy(template, points)]
    for head in tqdm(heads[1:], "matching heads", unit="head", mininterval=5):
        mapping = _Mapping(template, head)
        mapping.fit(fields, _soft_labels(head), _brain_points(template), seed)
        found.append(Anatomy(head, mapping(points).detach()))
    return found


def spread_points(head: LabelMap, count: int) -> torch.Tensor:
    """Points (count, 3) of the brain, each as far as possible from those before it."""
    return spread_out(_brain_points(head)[::3], count)


def save_anatomies(path: Path, anatomies: list[Anatomy]) -> None:
    """Write the heads and their keypoints to one .npz file."""
    np.savez_compressed(
        path,
        names=np.array([each.head.name for each in anatomies]),
        labels=np.stack([each.head.labels.numpy() for each in anatomies]),
        points=np.stack([each.points.numpy() for each in anatomies]),
    )


def load_anatomies(path: Path) -> list[Anatomy]:
    """Read what save_anatomies wrote."""
    with np.load(path, allow_pickle=False) as stored:
        names, labels, points = stored["names"], stored["labels"], stored["points"]
    return [
        Anatomy(LabelMap(str(name), torch.from_numpy(grid)), torch.from_numpy(where))
        for name, grid, where in zip(names, labels, points, strict=True)
    ]


class _Mapping:
    """A map from points of the template to points of a head: affine plus a smooth offset."""

    def __init__(self, template: LabelMap, head: LabelMap) -> None:
        self._affine = _affine_of_centroids(template, head)
        self._offsets = torch.zeros(1, 3, CONTROL, CONTROL, CONTROL, requires_grad=True)

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        moved = points @ self._affine[:, :3].T + self._affine[:, 3]
        return moved + sample_points(self._offsets, points)

    def fit(
        self, template: torch.Tensor, head: torch.Tensor, where: torch.Tensor, seed: int
    ) -> None:
        """Adam on the squared difference of soft labels, with second differences penalised."""
        generator = torch.Generator().manual_seed(seed)
        scale = 1 / (template.mean(dim=(0, 2, 3, 4)) + 1e-4)
        adam = torch.optim.Adam([self._offsets], lr=0.004)
        for _ in range(STEPS):
            chosen = where[torch.randint(0, len(where), (POINTS_PER_STEP,), generator=generator)]
            chosen = chosen + 0.01 * torch.randn(chosen.shape, generator=generator)
            difference = sample_points(head, self(chosen)) - sample_points(template, chosen)
            loss = (difference.square().mean(dim=0) * scale).mean()
            loss = loss + STIFFNESS * _roughness(self._offsets)
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()


def _roughness(offsets: torch.Tensor) -> torch.Tensor:
    return torch.stack([offsets.diff(n=2, dim=axis).square().mean() for axis in (2, 3, 4)]).sum()


def _structures() -> list[int]:
    return [label for pair in LEFT_RIGHT for label in pair] + list(MIDLINE)


def _affine_of_centroids(template: LabelMap, head: LabelMap) -> torch.Tensor:
    """(3, 4) least-squares affine between the centroids of the structures both heads have."""
    sources, targets = [], []
    for label in _structures():
        in_template, in_head = template.labels == label, head.labels == label
        if min(int(in_template.sum()), int(in_head.sum())) >= LEAST_VOXELS:
            sources.append(_centres(in_template).mean(dim=0))
            targets.append(_centres(in_head).mean(dim=0))
    ones = torch.ones(len(sources), 1)
    solved = torch.linalg.lstsq(torch.cat([torch.stack(sources), ones], 1), torch.stack(targets))
    return solved.solution.T


def _brain_points(head: LabelMap) -> torch.Tensor:
    labels = head.labels
    return _centres((labels > 0) & (labels < FIRST_OUTSIDE_BRAIN) & (labels != FLUID_OUTSIDE))


def _centres(mask: torch.Tensor) -> torch.Tensor:
    """Normalised x, y, z (n, 3) of the voxels of a mask."""
    return (2 * mask.nonzero().flip(1).float() + 1) / VOXELS - 1


def _soft_labels(head: LabelMap) -> torch.Tensor:
    """Share of each structure (1, structures, 64, 64, 64), smoothed over about 1 cm."""
    shares = []
    for label in _structures():
        share = functional.avg_pool3d((head.labels == label).float()[None, None], 2)
        shares.append(functional.avg_pool3d(share, 3, stride=1, padding=1))
    return torch.cat(shares, dim=1)


def mean_points_mm(anatomies: list[Anatomy]) -> torch.Tensor:
    """The average position (k, 3) of the keypoints over all heads, mm from the brain's centre."""
    return HALF_SIDE_MM * torch.stack([each.points for each in anatomies]).mean(dim=0)
