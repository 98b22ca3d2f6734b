"""Head label maps as anatomy to paint: FreeSurfer-like labels in a cube around the brain.

Normalised coordinates of the anatomy run from -1 to 1 over a cube of 2 * HALF_SIDE_MM that is
centred on the brain, x to the left, y to the back, z up (LPS).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from retreg.errors import FileError
from retreg.files import read_image
from retreg.geometry import apply_matrix
from retreg_server.registration.numerics.spaces import TensorVolume, canonical

HALF_SIDE_MM = 128.0
VOXELS = 128
LEFT_RIGHT = (
    (2, 41), (3, 42), (4, 43), (5, 44), (7, 46), (8, 47), (10, 49), (11, 50), (12, 51), (13, 52),
    (17, 53), (18, 54), (25, 57), (26, 58), (28, 60), (30, 62), (136, 137), (163, 164),
)  # fmt: skip
MIDLINE = (14, 15, 16, 24, 72, 85)
FLUID_OUTSIDE = 24
FIRST_OUTSIDE_BRAIN = 500
LABELS = 600


@dataclass(frozen=True, eq=False)
class LabelMap:
    """labels: (VOXELS,) * 3 int16 in the order z, y, x, 0 for air."""

    name: str
    labels: torch.Tensor

    def mirrored(self) -> LabelMap:
        """The same head seen in a mirror, with the names of left and right exchanged."""
        swap = torch.arange(LABELS, dtype=torch.int16)
        for left, right in LEFT_RIGHT:
            swap[left], swap[right] = right, left
        return LabelMap(f"{self.name}-mirrored", swap[self.labels.flip(2).long()])

    def look_up(self, points: torch.Tensor) -> torch.Tensor:
        """Labels int64 (…) at normalised points (…, 3) x, y, z: nearest voxel, 0 outside."""
        inside = torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)
        place = torch.zeros(points.shape[:-1], dtype=torch.int32, device=points.device)
        for axis in (2, 1, 0):
            index = ((points[..., axis] + 1) * (VOXELS / 2)).floor().int()
            inside &= (index >= 0) & (index < VOXELS)
            place = place * VOXELS + index.clamp_(0, VOXELS - 1)
        found = self.labels.reshape(-1).index_select(0, place.reshape(-1)).reshape(place.shape)
        return found.long() * inside


def read_label_maps(folder: Path) -> list[LabelMap]:
    """All label maps (*.nii.gz) in the folder, by name. Raises FileError when there are none."""
    files = sorted(folder.glob("*.nii.gz")) if folder.is_dir() else []
    if not files:
        raise FileError(
            f"The folder {folder.name} holds no label maps; NIfTI files (.nii.gz) with "
            "FreeSurfer-like labels of whole heads were expected."
        )
    return [read_label_map(file) for file in files]


def read_label_map(file: Path) -> LabelMap:
    """One label map, resampled by nearest neighbour. Raises FileError when no brain is in it."""
    volume = canonical(read_image(file))
    labels = volume.tensor[0, 0].numpy()
    brain = np.argwhere((labels > 0) & (labels < FIRST_OUTSIDE_BRAIN) & (labels != FLUID_OUTSIDE))
    if len(brain) == 0 or labels.max() >= LABELS:
        raise FileError(
            f"{file.name} holds no head label map; labels of the brain below "
            f"{FIRST_OUTSIDE_BRAIN} and all labels below {LABELS} were expected."
        )
    centre = apply_matrix(volume.world_from_index, brain.mean(axis=0)[None, ::-1])[0]
    world_from_cube = np.diag([HALF_SIDE_MM, HALF_SIDE_MM, HALF_SIDE_MM, 1.0])
    world_from_cube[:3, 3] = centre
    return LabelMap(file.name.split(".")[0], _nearest(volume, world_from_cube))


def _nearest(volume: TensorVolume, world_from_cube: np.ndarray) -> torch.Tensor:
    theta = np.linalg.inv(volume.world_from_norm) @ world_from_cube
    grid = functional.affine_grid(
        torch.from_numpy(theta[None, :3]).float(), [1, 1, *(VOXELS,) * 3], align_corners=False
    )
    labels = functional.grid_sample(volume.tensor, grid, mode="nearest", align_corners=False)
    return labels[0, 0].round().to(torch.int16)
