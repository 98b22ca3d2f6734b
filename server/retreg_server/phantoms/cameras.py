"""Cameras that photograph a made-up eye: colour, red-free and fluorescein angiography.

A view says where the camera looks; everything is computed at the pixels of that view, so that no
picture is a resampled version of another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from retreg_server.phantoms.eye import Blobs, Eye
from retreg_server.phantoms.noise import smooth_noise
from retreg_server.phantoms.strokes import draw_segments
from retreg_server.phantoms.vessels import VesselTree

Modality = Literal["colour", "angiography", "redfree"]
FIELD_OF_VIEW = 0.485
"""Radius of the visible circle as a share of the picture's side."""


def _rgb(red: float, green: float, blue: float) -> np.ndarray:
    return np.array([red, green, blue], dtype=np.float32)[:, None, None]


NERVE, CUP, EXUDATE = _rgb(0.93, 0.62, 0.30), _rgb(0.05, 0.26, 0.34), _rgb(0.95, 0.82, 0.42)
REFLEX = _rgb(0.07, 0.056, 0.035)
ARTERIAL_BLOOD, VENOUS_BLOOD = _rgb(0.20, 0.62, 0.45), _rgb(0.42, 0.95, 0.62)
SPILT_BLOOD = _rgb(0.50, 1.05, 0.65)
"""Optical depth per unit of thickness in red, green and blue light."""


@dataclass(frozen=True, eq=False)
class View:
    """How a picture of size x size pixels sees the retina.

    x, y: (size, size) retina coordinates of every pixel. pixels_of: maps retina coordinates
    (n, 2) to pixels (n, 2). magnification: pixels per retina unit.
    """

    x: np.ndarray
    y: np.ndarray
    pixels_of: Callable[[np.ndarray], np.ndarray]
    magnification: float

    @property
    def size(self) -> int:
        """Side of the square picture in pixels."""
        return len(self.x)


@dataclass(frozen=True, eq=False)
class _Layers:
    """What lies on the tissue in one view, each (size, size): optical depth or coverage."""

    arteries: np.ndarray
    veins: np.ndarray
    reflex: np.ndarray
    haemorrhages: np.ndarray
    exudates: np.ndarray
    aneurysms: np.ndarray


def photograph(eye: Eye, view: View, modality: Modality, rng: np.random.Generator) -> np.ndarray:
    """The picture as uint8 (channels, size, size), black outside the field of view."""
    layers = _layers(eye, view)
    tissue = {"colour": _colour, "redfree": _red_free, "angiography": _angiogram}[modality]
    light = tissue(eye, view, layers)
    light = ndimage.gaussian_filter(light, (0, 0.65, 0.65))
    lit = light * _illumination(rng, view.size, modality)
    return _exposed(rng, lit, view.size)


def _layers(eye: Eye, view: View) -> _Layers:
    artery_cover, artery_chord = _vessels(eye.arteries, view)
    vein_cover, vein_chord = _vessels(eye.veins, view)
    unit = 0.02 * view.magnification
    middle = np.clip(artery_chord / unit - 0.25, 0, 1) ** 2 + 0.5 * (vein_chord / unit) ** 4
    haze = ndimage.gaussian_filter(_spots(eye.haemorrhages, view), 0.003 * view.magnification)
    return _Layers(
        arteries=artery_cover * np.sqrt(artery_chord / unit),
        veins=vein_cover * np.sqrt(vein_chord / unit),
        reflex=np.clip(middle, 0, 1),
        haemorrhages=haze,
        exudates=_spots(eye.exudates, view),
        aneurysms=_spots(eye.aneurysms, view),
    )


def _vessels(tree: VesselTree, view: View) -> tuple[np.ndarray, np.ndarray]:
    pixels = view.pixels_of(tree.points)
    inner = tree.parents >= 0
    return draw_segments(
        pixels[tree.parents[inner]],
        pixels[inner],
        tree.radii[inner] * view.magnification,
        (view.size, view.size),
    )


def _spots(blobs: Blobs, view: View) -> np.ndarray:
    pixels = view.pixels_of(blobs.centres)
    shape = (view.size, view.size)
    return draw_segments(pixels, pixels, blobs.radii * view.magnification, shape)[0]


def _colour(eye: Eye, view: View, layers: _Layers) -> np.ndarray:
    """Light (3, h, w) that comes back: pigment, then disc, then blood by Beer-Lambert's law."""
    from_fovea = np.hypot(view.x - eye.fovea[0], (view.y - eye.fovea[1]) * 1.1)
    macula = np.exp(-((from_fovea / 0.3) ** 2)) + 0.8 * np.exp(-((from_fovea / 0.1) ** 2))
    clouds, grain, choroid, fibres = (
        eye.texture(field, view.x, view.y)
        for field in (eye.clouds, eye.grain, eye.choroid, eye.fibres)
    )
    showing = np.clip(from_fovea - 0.25, 0, 1)
    texture = 0.05 * clouds + 0.018 * grain
    red = 0.76 * (1 + 0.7 * texture + 0.05 * showing * choroid) * (1 - 0.13 * macula)
    green = 0.40 * (1 + texture + 0.13 * showing * choroid + 0.05 * fibres) * (1 - 0.24 * macula)
    blue = 0.19 * (1 + texture - 0.1 * showing * choroid + 0.06 * fibres) * (1 - 0.25 * macula)
    light = np.stack([red, green, blue])
    light = _with_disc(eye, view, light)
    light = light + 0.75 * layers.exudates * (EXUDATE - light)
    blood = ARTERIAL_BLOOD * layers.arteries + VENOUS_BLOOD * layers.veins
    bleeding = np.clip(layers.haemorrhages + layers.aneurysms, 0, 1)
    blood += SPILT_BLOOD * bleeding
    return np.asarray(light * np.exp(-blood) + REFLEX * layers.reflex, dtype=np.float32)


def _with_disc(eye: Eye, view: View, light: np.ndarray) -> np.ndarray:
    """Light (3, h, w) with the optic disc, its cup, and the paler ring around it."""
    rim = eye.disc_distance(view.x, view.y)
    cup = eye.disc_distance(view.x + 0.02, view.y) / 0.52
    inside = 1 / (1 + np.exp((rim - 1) * 22))
    deep = 1 / (1 + np.exp((cup - 1) * 7))
    ring = np.exp(-(((rim - 1.12) / 0.18) ** 2))
    light = light * (1 + 0.1 * ring + 0.06 * np.exp(-((rim / 3.0) ** 2)))
    colour = (NERVE + deep * CUP) * (1 + 0.03 * eye.texture(eye.grain, view.x, view.y))
    return np.asarray(light * (1 - inside) + colour * inside)


def _red_free(eye: Eye, view: View, layers: _Layers) -> np.ndarray:
    """Grey light (1, h, w) under a green filter, with more contrast than the green channel."""
    green = _colour(eye, view, layers)[1:2]
    return np.asarray(0.12 + 0.95 * green, dtype=np.float32)


def _angiogram(eye: Eye, view: View, layers: _Layers) -> np.ndarray:
    """Fluorescence (1, h, w) of dye in the blood; pigment and bleeding hide what lies behind."""
    from_fovea = np.hypot(view.x - eye.fovea[0], view.y - eye.fovea[1])
    xanthophyll = np.exp(-((from_fovea / 0.17) ** 2))
    clouds, grain, choroid = (
        eye.texture(field, view.x, view.y) for field in (eye.clouds, eye.grain, eye.choroid)
    )
    flush = 0.27 * (1 + 0.13 * clouds + 0.08 * grain - 0.12 * choroid) * (1 - 0.72 * xanthophyll)
    rim = eye.disc_distance(view.x, view.y)
    inside = 1 / (1 + np.exp((rim - 1) * 12))
    flush = flush * (1 - 0.35 * inside) + 0.16 * np.exp(-(((rim - 0.98) / 0.16) ** 2))
    flush = flush * np.exp(-1.3 * layers.haemorrhages) + 0.05 * layers.exudates
    dye = 0.95 * layers.arteries + 1.15 * layers.veins + 1.6 * layers.aneurysms
    leak = ndimage.gaussian_filter(layers.aneurysms, 0.012 * view.magnification)
    glow = 1 - (1 - flush) * np.exp(-0.85 * dye - 1.5 * leak)
    hidden = 0.55 * np.clip(layers.haemorrhages, 0, 1)
    return np.asarray(glow * (1 - hidden), dtype=np.float32)[None]


def _illumination(rng: np.random.Generator, size: int, modality: Modality) -> np.ndarray:
    """Uneven light (size, size): brightest near the middle, never centred, with a soft rim."""
    axis = (np.arange(size) - (size - 1) / 2) / (FIELD_OF_VIEW * size)
    x, y = np.meshgrid(axis, axis)
    centre = rng.uniform(-0.25, 0.25, 2)
    fall = {"colour": 0.34, "redfree": 0.38, "angiography": 0.5}[modality]
    distance = np.hypot(x - centre[0], y - centre[1])
    patches = 0.05 * smooth_noise(rng, (size, size), 0.8 * size)
    return np.asarray(1.08 - fall * distance**2.2 / (1 + 0.3 * distance) + patches)


def _exposed(rng: np.random.Generator, light: np.ndarray, size: int) -> np.ndarray:
    """The light (c, size, size) as uint8, with sensor noise and the black border."""
    coarse = ndimage.gaussian_filter(rng.standard_normal(light.shape), (0, 0.6, 0.6))
    noisy = np.clip(light, 0, 1) ** 0.95 + 0.022 * coarse
    axis = np.arange(size) - (size - 1) / 2
    edge = FIELD_OF_VIEW * size - np.hypot(*np.meshgrid(axis, axis))
    seen = np.clip(edge / 2 + 0.5, 0, 1)
    return np.rint(255 * np.clip(noisy, 0, 1) * seen).astype(np.uint8)
