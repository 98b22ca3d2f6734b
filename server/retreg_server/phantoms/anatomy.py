"""A made-up head: which tissue fills each point, with soft borders.

Head coordinates: mm along LPS of an upright head (x to its left, y to the back, z to the top), the
origin in the middle of the brain. Every structure is a field of signed distances in mm, negative
inside; the structures are painted one over the other from the skin inwards.

The folds of the cortex: sulci are the sheets where a smooth random function of the direction from
the middle of the brain is zero, so they cut in from the surface and meander on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from retreg_server.phantoms.noise import sample, smooth_noise

FOLD_SAMPLES, FOLD_EXTENT_MM, SULCUS_DEPTH_MM = 96, 100.0, 17.0


class Tissue(IntEnum):
    """Labels of the head; left and right differ where the anatomy is paired."""

    AIR = 0
    SKIN = 1
    MUSCLE = 2
    SKULL = 3
    MARROW = 4
    CSF = 5
    GREY_LEFT = 6
    GREY_RIGHT = 7
    WHITE_LEFT = 8
    WHITE_RIGHT = 9
    VENTRICLE_LEFT = 10
    VENTRICLE_RIGHT = 11
    DEEP_LEFT = 12
    DEEP_RIGHT = 13
    CEREBELLAR_GREY = 14
    CEREBELLAR_WHITE = 15
    BRAIN_STEM = 16
    EYE = 17
    LENS = 18
    LESION = 19


EXTRACEREBRAL = (Tissue.SKIN, Tissue.MUSCLE, Tissue.SKULL, Tissue.MARROW, Tissue.EYE, Tissue.LENS)


@dataclass(frozen=True, eq=False)
class Head:
    """One made-up head: its random proportions and folds.

    scale: (3,) individual stretch of the axes; folds: (FOLD_SAMPLES,) * 3 random function on a
    cube; fold_slope: its gradient per mm; left_ventricle: how much larger the left one is;
    lesions: (n, 4) centre and radius in mm.
    """

    scale: np.ndarray
    folds: np.ndarray
    fold_slope: np.ndarray
    left_ventricle: float
    lesions: np.ndarray


def make_head(rng: np.random.Generator) -> Head:
    """A head with its own size, folds, ventricles and a few lesions in the left hemisphere."""
    shape = (FOLD_SAMPLES,) * 3
    spacing = 2 * FOLD_EXTENT_MM / (FOLD_SAMPLES - 1)
    folds = smooth_noise(rng, shape, 20.0 / spacing)
    slope = np.sqrt(sum(g**2 for g in np.gradient(folds, spacing)))
    lesions = np.array([[24.0, -18, 20, 5.0], [30, 22, 16, 4], [-26, 30, 24, 2.5], [20, 2, 30, 3]])
    lesions[:, :3] += rng.normal(0, 3, (4, 3))
    return Head(
        scale=rng.uniform(0.95, 1.05, 3),
        folds=folds,
        fold_slope=slope.astype(np.float32),
        left_ventricle=rng.uniform(1.2, 1.4),
        lesions=lesions,
    )


def layers(head: Head, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Iterator[
    tuple[Tissue, np.ndarray]
]:
    """(tissue, signed distance in mm) from the outside in, at head coordinates x, y, z.

    What comes later covers what came before.
    """
    x, y, z = x / head.scale[0], y / head.scale[1], z / head.scale[2]
    yield from _shell(x, y, z)
    yield from _cerebrum(head, x, y, z)
    yield from _deep(head, x, y, z)
    yield from _hindbrain(x, y, z)


def _ellipsoid(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
) -> np.ndarray:
    """Approximate signed distance to an ellipsoid; exact to first order at its surface."""
    u, v, w = (x - centre[0]) / radii[0], (y - centre[1]) / radii[1], (z - centre[2]) / radii[2]
    level = np.sqrt(u * u + v * v + w * w) + 1e-6
    steepness = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2) + 1e-6
    return np.asarray((level - 1) * level / steepness)


def _joined(first: np.ndarray, second: np.ndarray, softness: float) -> np.ndarray:
    """Smooth union of two signed distances; softness in mm rounds the seam."""
    blend = np.clip(0.5 + 0.5 * (second - first) / softness, 0, 1)
    return np.asarray(
        second + (first - second) * blend - softness * blend * (1 - blend), dtype=np.float32
    )


def _cranium(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Signed distance to the inside of the skull: egg-shaped, wider behind, flat below."""
    width = x / (1 + 0.0016 * (y + 10))
    vault = _ellipsoid(width, y, z, (0.0, 0.0, 0.0), (68.0, 86.0, 66.0))
    floor = -(z + 42 - 0.12 * y) * 0.96
    hind = _ellipsoid(x, y, z, (0.0, 42.0, -42.0), (52.0, 40.0, 32.0))
    return _joined(np.maximum(vault, floor), hind, 10.0)


def _shell(
    x: np.ndarray, y: np.ndarray, z: np.ndarray
) -> Iterator[tuple[Tissue, np.ndarray]]:
    """Skin, muscle, face, skull, eyes: everything around the brain."""
    cranium = _cranium(x, y, z)
    face = _ellipsoid(x, y, z, (0.0, -48.0, -62.0), (56.0, 46.0, 62.0))
    neck = np.hypot(x, (y - 22) * 0.9) - 54
    neck = np.maximum(neck, z + 55)
    nose = _ellipsoid(x, y, z, (0.0, -97.0, -52.0), (12.0, 17.0, 20.0))
    ears = _ellipsoid(np.abs(x), y, z, (80.0, 12.0, -34.0), (9.0, 14.0, 26.0))
    body = _joined(_joined(cranium - 15, face, 16.0), neck, 14.0)
    skin = _joined(_joined(body, nose, 7.0), ears, 4.0)
    yield Tissue.SKIN, skin
    yield Tissue.MUSCLE, np.maximum(skin + 6, z + 26)
    yield Tissue.SKULL, cranium - 8.5
    yield Tissue.MARROW, np.abs(cranium - 4.5) - 1.6 - 0.6 * np.sin(0.05 * y)
    yield Tissue.SKULL, _ellipsoid(x, y, z, (0.0, -50.0, -64.0), (36.0, 34.0, 14.0))
    yield Tissue.AIR, _ellipsoid(x, y, z, (0.0, -68.0, -58.0), (11.0, 26.0, 16.0))
    yield Tissue.AIR, np.maximum(np.hypot(x, y + 18) - 9, z + 72)
    yield Tissue.SKULL, np.maximum(np.hypot(x, y - 32) - 16, z + 70)
    for side in (-1.0, 1.0):
        orbit = (side * 32.0, -76.0, -34.0)
        yield Tissue.AIR, _ellipsoid(x, y, z, (side * 30.0, -64.0, -66.0), (12.0, 14.0, 13.0))
        yield Tissue.SKIN, _ellipsoid(x, y, z, (orbit[0], -66.0, orbit[2]), (17.0, 24.0, 16.0))
        yield Tissue.EYE, _ellipsoid(x, y, z, orbit, (12.2, 12.2, 12.2))
        yield Tissue.LENS, _ellipsoid(x, y, z, (orbit[0], -85.0, orbit[2]), (5.0, 2.6, 5.0))
    yield Tissue.CSF, cranium


def _cerebrum(
    head: Head, x: np.ndarray, y: np.ndarray, z: np.ndarray
) -> Iterator[tuple[Tissue, np.ndarray]]:
    """Cortex with sulci down to the white matter, in two hemispheres that are not alike."""
    # The right frontal and the left occipital lobe reach farther: the petalia of human brains.
    petalia = np.clip(0.035 * x * np.tanh(y / 40), -2.2, 2.2)
    outer = _cranium(x, y, z) + 3.2 - petalia
    depth = np.minimum(-outer, _tentorium(x, y, z) - 2)
    sulcus = _sulcus_distance(head, x, y, z)
    sulcus = sulcus + np.clip(1.2 * (-outer - SULCUS_DEPTH_MM), 0, None)
    fissure = np.abs(x + 1.5 * np.sin(0.04 * y)) + np.clip(26 - np.hypot(y * 0.75, z - 2), 0, None)
    sylvian = np.hypot(z + 8 + 0.18 * y, np.clip(46 - np.abs(x), 0, None)) + np.clip(
        np.abs(y + 2) - 34, 0, None
    )
    gap = np.minimum(np.minimum(sulcus - 0.5, fissure - 1.2), sylvian - 1.6)
    ribbon = np.minimum(depth, gap)
    left = x > 0
    for tissue, inside, half in (
        (Tissue.GREY_LEFT, ribbon, left),
        (Tissue.GREY_RIGHT, ribbon, ~left),
        (Tissue.WHITE_LEFT, ribbon - 3.1, left),
        (Tissue.WHITE_RIGHT, ribbon - 3.1, ~left),
    ):
        yield tissue, np.where(half, -inside, 99.0)


def _tentorium(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Signed distance to the tent under the occipital lobes; positive above it and before it."""
    roof = z + 20 + 0.004 * x * x + 0.012 * np.clip(y - 30, 0, None) ** 2
    opening = np.maximum(np.hypot(x, (y - 14) * 1.1) - 15, z + 9)
    return np.asarray(np.minimum(np.maximum(roof, 24 - 0.3 * np.abs(x) - y), opening))


def _sulcus_distance(head: Head, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Distance in mm to the nearest sulcal sheet, to first order."""
    away = np.sqrt((x / 65) ** 2 + (y / 83) ** 2 + (z / 63) ** 2) + 1e-3
    pull = (0.25 + 0.75 / away).astype(np.float32)
    to_sample = (FOLD_SAMPLES - 1) / (2 * FOLD_EXTENT_MM)
    position = np.stack([(axis * pull + FOLD_EXTENT_MM) * to_sample for axis in (x, y, z)])
    value = sample(head.folds, position)
    slope = sample(head.fold_slope, position) * np.clip(pull, 0.5, 2.0)
    return np.asarray(np.abs(value) / (slope + 0.015))


def _deep(
    head: Head, x: np.ndarray, y: np.ndarray, z: np.ndarray
) -> Iterator[tuple[Tissue, np.ndarray]]:
    """Basal nuclei, thalami, ventricles and lesions."""
    third = _ellipsoid(x, y, z, (0.0, 4.0, -8.0), (2.6, 15.0, 10.0))
    for side, deep, ventricle, size in (
        (1.0, Tissue.DEEP_LEFT, Tissue.VENTRICLE_LEFT, head.left_ventricle),
        (-1.0, Tissue.DEEP_RIGHT, Tissue.VENTRICLE_RIGHT, 1.0),
    ):
        u = side * x
        thalamus = _ellipsoid(u, y, z, (11.0, 8.0, -2.0), (8.5, 14.0, 9.0))
        putamen = _ellipsoid(u - 0.12 * y, y, z, (25.0, -9.0, -3.0), (5.5, 17.0, 11.0))
        caudate = _ellipsoid(u, y, z, (13.0, -22.0, 8.0), (5.5, 11.0, 9.0))
        yield deep, np.minimum(np.minimum(thalamus, putamen), caudate)
        body = _ellipsoid(u - 0.1 * y, y, z - 0.006 * y * y * -0.35, (10.0, 0.0, 14.0),
                          (5.0 * size, 36.0, 6.0 * size))
        horn = _ellipsoid(u, y, z, (21.0, 36.0, 2.0), (5.5 * size, 13.0, 9.0 * size))
        temporal_horn = _ellipsoid(u, y, z, (30.0, 6.0, -20.0), (3.5, 17.0, 3.5 * size))
        yield ventricle, np.minimum(_joined(body, horn, 5.0), temporal_horn)
    yield Tissue.VENTRICLE_RIGHT, third
    for cx, cy, cz, radius in head.lesions:
        yield Tissue.LESION, _ellipsoid(x, y, z, (cx, cy, cz), (radius, 1.4 * radius, radius))


def _hindbrain(
    x: np.ndarray, y: np.ndarray, z: np.ndarray
) -> Iterator[tuple[Tissue, np.ndarray]]:
    """Cerebellum with its fine leaves, the brain stem and the fourth ventricle."""
    lobe = np.maximum(_cranium(x, y, z) + 4, _tentorium(x, y, z) + 2)
    leaves = np.abs(np.sin(0.38 * np.hypot(y - 14, z + 30))) * 2.4
    yield Tissue.CEREBELLAR_GREY, lobe + 0.5
    yield Tissue.CEREBELLAR_WHITE, lobe + 5.0 + 2.2 * leaves
    stem = np.hypot(x, (y - 14 - 0.12 * (z + 40)) * 0.95) - 12.5 + 0.05 * (-40 - z)
    pons = _ellipsoid(x, y, z, (0.0, 10.0, -40.0), (17.0, 14.0, 14.0))
    canal = np.hypot(x, y - 24) - 9
    yield Tissue.CSF, np.maximum(canal, np.abs(z + 72) - 12)
    yield Tissue.BRAIN_STEM, np.maximum(_joined(stem, pons, 6.0), np.abs(z + 46) - 36)
    yield Tissue.VENTRICLE_RIGHT, _ellipsoid(x, y, z, (0.0, 27.0, -44.0), (5.0, 4.0, 10.0))
