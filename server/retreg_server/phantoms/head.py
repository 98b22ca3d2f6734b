"""Pairs of made-up heads in two MR contrasts with known truth."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Affine
from retreg_server.phantoms.anatomy import EXTRACEREBRAL, Head, Tissue, layers, make_head
from retreg_server.phantoms.noise import smooth_noise
from retreg_server.phantoms.pair import PhantomPair

Contrast = Literal["t1", "t2", "flair", "pd"]
CONTRASTS = ("t1", "t2", "flair", "pd")
EXTENT_MM = np.array([180.0, 228.0, 216.0])
MIDDLE_MM = np.array([0.0, -6.0, -22.0])
WHITE_LEVEL = 1000.0

SIGNAL = {
    Tissue.AIR: (0.01, 0.01, 0.01, 0.01),
    Tissue.SKIN: (0.86, 0.50, 0.42, 0.66),
    Tissue.MUSCLE: (0.36, 0.17, 0.24, 0.42),
    Tissue.SKULL: (0.06, 0.05, 0.05, 0.08),
    Tissue.MARROW: (0.48, 0.26, 0.24, 0.34),
    Tissue.CSF: (0.14, 0.94, 0.09, 0.70),
    Tissue.GREY_LEFT: (0.50, 0.54, 0.58, 0.80),
    Tissue.GREY_RIGHT: (0.50, 0.54, 0.58, 0.80),
    Tissue.WHITE_LEFT: (0.76, 0.34, 0.44, 0.62),
    Tissue.WHITE_RIGHT: (0.76, 0.34, 0.44, 0.62),
    Tissue.VENTRICLE_LEFT: (0.13, 0.97, 0.07, 0.72),
    Tissue.VENTRICLE_RIGHT: (0.13, 0.97, 0.07, 0.72),
    Tissue.DEEP_LEFT: (0.57, 0.43, 0.53, 0.74),
    Tissue.DEEP_RIGHT: (0.57, 0.43, 0.53, 0.74),
    Tissue.CEREBELLAR_GREY: (0.52, 0.52, 0.56, 0.79),
    Tissue.CEREBELLAR_WHITE: (0.73, 0.36, 0.45, 0.64),
    Tissue.BRAIN_STEM: (0.69, 0.38, 0.47, 0.66),
    Tissue.EYE: (0.15, 0.95, 0.14, 0.72),
    Tissue.LENS: (0.36, 0.25, 0.28, 0.45),
    Tissue.LESION: (0.40, 0.82, 0.95, 0.92),
}
"""Signal of each tissue in the order of CONTRASTS, as a share of WHITE_LEVEL."""


def make_head_pair(
    seed: int,
    spacing_mm: float = 2.0,
    rotation_deg: float = 60.0,
    shift_mm: tuple[float, float, float] = (6.0, -9.0, 5.0),
    stretch: float = 0.02,
    fixed: Contrast = "t1",
    moving: Contrast = "t2",
    stripped: bool = False,
    noise: float = 0.02,
) -> PhantomPair:
    """One head scanned twice, float32 volumes with labels of Tissue (uint8).

    The moving head is turned by rotation_deg about a random axis, shifted, and stretched by a
    random affine whose entries are of the order of stretch. It lies on an oblique grid of its own
    whose voxels are a little larger. Landmarks are 400 points of the brain. stripped: only the
    brain is left in both images. noise: standard deviation as a share of the white-matter signal.
    """
    rng = np.random.default_rng(seed)
    head = make_head(rng)
    truth = _random_affine(rng, rotation_deg, shift_mm, stretch)
    fixed_grid = _upright_grid(spacing_mm)
    moving_grid = _oblique_grid(rng, 1.1 * spacing_mm, truth(MIDDLE_MM[None])[0])
    images = []
    for grid, head_from_world, contrast in (
        (fixed_grid, np.eye(4), fixed),
        (moving_grid, truth.inverse.moving_from_fixed, moving),
    ):
        signal, labels = _scanned(head, grid, head_from_world, contrast, stripped)
        acquired = _acquired(rng, signal, noise)
        images.append((Image(acquired[None], grid), Image(labels[None], grid)))
    (fixed_image, fixed_labels), (moving_image, moving_labels) = images
    return PhantomPair(
        fixed=fixed_image,
        moving=moving_image,
        truth=truth,
        landmarks=_points_of_the_brain(rng, fixed_labels),
        fixed_labels=fixed_labels,
        moving_labels=moving_labels,
    )


def _random_affine(
    rng: np.random.Generator, rotation_deg: float, shift_mm: tuple[float, ...], stretch: float
) -> Affine:
    """A turn about a random axis through the middle of the head, then the shift."""
    axis = rng.standard_normal(3)
    turn = Rotation.from_rotvec(np.deg2rad(rotation_deg) * axis / np.linalg.norm(axis))
    matrix = np.eye(4)
    matrix[:3, :3] = turn.as_matrix() @ (np.eye(3) + stretch * rng.uniform(-1, 1, (3, 3)))
    matrix[:3, 3] = MIDDLE_MM + shift_mm - matrix[:3, :3] @ MIDDLE_MM
    return Affine(matrix)


def _upright_grid(spacing_mm: float) -> Grid:
    """Axes right to left, front to back, bottom to top, as most scanners store a head."""
    size = np.ceil(EXTENT_MM / spacing_mm).astype(int)
    matrix = np.diag([spacing_mm] * 3 + [1.0])
    matrix[:3, 3] = MIDDLE_MM - spacing_mm * (size - 1) / 2
    return Grid((size[0], size[1], size[2]), matrix)


def _oblique_grid(rng: np.random.Generator, spacing_mm: float, middle: np.ndarray) -> Grid:
    """A cube around middle (3,), tilted by up to 15 degrees, stored from top to bottom."""
    count = int(np.ceil(EXTENT_MM.max() / spacing_mm))
    tilt = Rotation.from_rotvec(rng.uniform(-0.15, 0.15, 3)).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3] = tilt @ np.diag([spacing_mm, spacing_mm, -spacing_mm])
    matrix[:3, 3] = middle - matrix[:3, :3] @ np.full(3, (count - 1) / 2)
    return Grid((count, count, count), matrix)


def _scanned(
    head: Head, grid: Grid, head_from_world: np.ndarray, contrast: Contrast, stripped: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Signal (float32) and labels (uint8), both (k, j, i); borders as wide as a voxel are mixed."""
    head_from_index = (head_from_world @ grid.world_from_index).astype(np.float32)
    k, j, i = np.ogrid[: grid.shape[0], : grid.shape[1], : grid.shape[2]]
    k, j, i = k.astype(np.float32), j.astype(np.float32), i.astype(np.float32)
    x, y, z = (row[0] * i + row[1] * j + row[2] * k + row[3] for row in head_from_index[:3])
    signal = np.full(grid.shape, SIGNAL[Tissue.AIR][0], dtype=np.float32)
    labels = np.zeros(grid.shape, dtype=np.uint8)
    mixing_mm = float(grid.spacing.mean())
    for tissue, distance in layers(head, x, y, z):
        if stripped and tissue in EXTRACEREBRAL:
            continue
        level = SIGNAL[tissue][CONTRASTS.index(contrast)]
        share = np.clip(0.5 - distance / mixing_mm, 0, 1)
        signal += share * (level - signal)
        labels[distance < 0] = tissue
    return signal, labels


def _acquired(rng: np.random.Generator, signal: np.ndarray, noise: float) -> np.ndarray:
    """The signal as a scanner gives it: slightly blurred, with coil shading and Rician noise."""
    shading = np.exp(0.09 * smooth_noise(rng, signal.shape, 0.9 * max(signal.shape)))
    texture = 1 + 0.02 * smooth_noise(rng, signal.shape, 8.0)
    seen = ndimage.gaussian_filter(signal * texture, 0.45) * shading
    real = seen + noise * rng.standard_normal(seen.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(seen.shape, dtype=np.float32)
    return np.asarray(WHITE_LEVEL * np.hypot(real, imaginary), dtype=np.float32)


def _points_of_the_brain(rng: np.random.Generator, labels: Image) -> np.ndarray:
    """400 world points (n, 3) drawn from the voxels of the brain."""
    brain = np.argwhere(labels.array[0] >= Tissue.GREY_LEFT)
    chosen = brain[rng.choice(len(brain), 400, replace=False)]
    return labels.grid.world(chosen[:, ::-1])
