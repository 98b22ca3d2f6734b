"""An eye without a camera: what its retina looks like before anybody photographs it.

Retina coordinates as in vessels.py: units of the field-of-view radius, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from retreg_server.phantoms.noise import ridges, sample, smooth_noise
from retreg_server.phantoms.vessels import VesselTree, grow_tree

EXTENT = 1.8
TEXTURE_SIZE = 640


@dataclass(frozen=True, eq=False)
class Blobs:
    """Round spots: centres (n, 2) and radii (n,) in retina coordinates."""

    centres: np.ndarray
    radii: np.ndarray


@dataclass(frozen=True, eq=False)
class Eye:
    """One made-up retina.

    disc, fovea: (2,); disc_radius; disc_tilt: ratio of its axes. clouds, grain, choroid, fibres:
    (TEXTURE_SIZE,) * 2 textures over -EXTENT..EXTENT. haemorrhages absorb light in every
    modality, exudates are bright in colour, aneurysms are dark in colour and shine with dye.
    """

    disc: np.ndarray
    fovea: np.ndarray
    disc_radius: float
    disc_tilt: float
    arteries: VesselTree
    veins: VesselTree
    clouds: np.ndarray
    grain: np.ndarray
    choroid: np.ndarray
    fibres: np.ndarray
    haemorrhages: Blobs
    exudates: Blobs
    aneurysms: Blobs

    def texture(self, field: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """One of the textures at retina coordinates x, y."""
        to_sample = (TEXTURE_SIZE - 1) / (2 * EXTENT)
        return sample(field, np.stack([(y + EXTENT) * to_sample, (x + EXTENT) * to_sample]))

    def disc_distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distance from the middle of the disc; 1 at its rim."""
        return np.asarray(
            np.hypot((x - self.disc[0]) / self.disc_tilt, y - self.disc[1]) / self.disc_radius
        )


def make_eye(rng: np.random.Generator) -> Eye:
    """An eye with moderate signs of diabetic retinopathy."""
    disc = np.array([rng.uniform(0.55, 0.68), rng.uniform(-0.06, 0.04)])
    fovea = disc + (-rng.uniform(0.66, 0.74), rng.uniform(0.03, 0.1))
    shape = (TEXTURE_SIZE, TEXTURE_SIZE)
    choroid = ridges(smooth_noise(rng, shape, 46.0), 3.0) + ridges(smooth_noise(rng, shape, 34), 2)
    return Eye(
        disc=disc,
        fovea=fovea,
        disc_radius=rng.uniform(0.115, 0.135),
        disc_tilt=rng.uniform(0.86, 0.96),
        arteries=grow_tree(rng, disc, fovea, rng.uniform(0.0085, 0.0105), 1.0),
        veins=grow_tree(rng, disc, fovea, rng.uniform(0.0115, 0.0135), 1.0),
        clouds=smooth_noise(rng, shape, 160.0) + 0.5 * smooth_noise(rng, shape, 60.0),
        grain=smooth_noise(rng, shape, 9.0) + 0.8 * smooth_noise(rng, shape, 4.0),
        choroid=ndimage.gaussian_filter(choroid, 1.2),
        fibres=_fibres(rng, disc),
        haemorrhages=_clustered(rng, fovea, clusters=6, size=40, spread=0.024, radius=0.007),
        exudates=_clustered(rng, fovea, clusters=4, size=8, spread=0.05, radius=0.006),
        aneurysms=_clustered(rng, fovea, clusters=26, size=2, spread=0.06, radius=0.005),
    )


def _fibres(rng: np.random.Generator, disc: np.ndarray) -> np.ndarray:
    """The fine bright streaks of the nerve fibre layer, fanning out from the disc."""
    axis = np.linspace(-EXTENT, EXTENT, TEXTURE_SIZE)
    x, y = np.meshgrid(axis - disc[0], axis - disc[1])
    away = np.hypot(x, y)
    angle = (np.arctan2(y, x) + 0.3 * np.sin(3 * away)) % (2 * np.pi)
    streaks = smooth_noise(rng, (720, 24), 10.0)
    position = np.stack([angle * 719 / (2 * np.pi), away * 6])
    return np.asarray(sample(streaks, position) * np.exp(-(((away - 0.3) / 0.35) ** 2)))


def _clustered(
    rng: np.random.Generator,
    fovea: np.ndarray,
    clusters: int,
    size: int,
    spread: float,
    radius: float,
) -> Blobs:
    """Clusters of spots in a ring around the fovea."""
    angle, away = rng.uniform(0, 2 * np.pi, clusters), rng.uniform(0.2, 0.95, clusters)
    middles = fovea + away[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    counts = rng.integers(max(1, size // 2), size + 1, clusters)
    centres = np.repeat(middles, counts, axis=0)
    centres = centres + rng.normal(0, spread, centres.shape) * (1.0, 0.7)
    return Blobs(centres, radius * rng.lognormal(-0.2, 0.45, len(centres)))
