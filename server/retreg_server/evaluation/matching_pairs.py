"""Pairs of pictures of one eye whose true correspondences are known, by kind of difficulty.

Made-up eyes are photographed in colour and as angiograms; no network was trained on them.
Photographs are warped in known ways and shown under another lamp; pairs of two cameras have
landmarks set by hand, the affine of which is their truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from retreg.errors import FileError
from retreg.files import read_image
from retreg.fitting import fit
from retreg.geometry import Grid
from retreg.image import Image
from retreg.resample import resample
from retreg.transforms import Chain, Transform
from retreg_server.evaluation.cases import Case, random_for, subset
from retreg_server.evaluation.known_truth import (
    foreground_points,
    relit,
    smooth_warp,
    turned_picture,
)
from retreg_server.evaluation.retina import multimodal_cases
from retreg_server.phantoms.fundus import make_fundus_pair

ANGLES = (0, 30, 60, 90, 135, 180)
SCALES = (0.4, 0.6, 0.8, 1.25, 1.7, 2.5)
OVERLAPS = (0.2, 0.3, 0.5, 0.7)
WARP_PIXELS = 6.0
WORKING_PIXELS = 800  # longer side at which photographs are warped
KINDS = ("rotation", "scale", "overlap", "degradation", "cameras", "made-up")
MADE_UP = {"as it is": (0.0, 0.05), "other size": (0.45, 0.05), "aside": (0.1, 0.35)}
FIRST_EYE, MADE_UP_PIXELS = 900_000, 512


@dataclass(frozen=True, eq=False)
class KnownPair:
    """Two pictures, the true map of their worlds, and points (n, 3) that both show."""

    fixed: Image
    moving: Image
    moving_from_fixed: Transform
    points: np.ndarray


class Difficulty(NamedTuple):
    """A pair of a figure: kind and x name its place there."""

    kind: str
    x: str
    name: str
    load: Callable[[], KnownPair]


def difficulties(data: Path, limit: int) -> list[Difficulty]:
    """The pairs; at most limit photographs and limit pairs of cameras.

    Raises FileError when the folder retina/vessels below data holds no photographs.
    """
    folder = data / "retina" / "vessels"
    photos = [
        path
        for path in sorted([*folder.glob("*.jpg"), *folder.glob("*.png")])
        if not path.stem.endswith(("_vessels", "_fov"))
    ]
    if not photos:
        raise FileError(f"{data.name} holds no photographs in retina/vessels; they were expected.")
    found = []
    for path in photos[:: max(1, len(photos) // limit)][:limit]:
        found += [
            Difficulty("rotation", f"{angle}", path.stem, partial(_turned, path, angle, 1.0))
            for angle in ANGLES
        ]
        found += [
            Difficulty("scale", f"{scale}", path.stem, partial(_scaled, path, scale))
            for scale in SCALES
        ]
        found += [
            Difficulty("overlap", f"{share}", path.stem, partial(_parted, path, share))
            for share in OVERLAPS
        ]
        found += [
            Difficulty("degradation", name, path.stem, partial(_degraded, path, name))
            for name in DEGRADATIONS
        ]
    for case in subset(multimodal_cases(data), limit):
        found.append(Difficulty("cameras", "as it is", case.name, partial(_real, case, 0)))
        angle = random_for(f"matching {case.name}").uniform(30, 330)
        found.append(Difficulty("cameras", "turned", case.name, partial(_real, case, angle)))
    return found + [
        Difficulty("made-up", x, f"{seed}", partial(_made_up, seed, x))
        for x in MADE_UP
        for seed in range(FIRST_EYE, FIRST_EYE + limit)
    ]


def _made_up(seed: int, x: str) -> KnownPair:
    """A made-up eye in colour and as an angiogram, turned by any angle; x: of MADE_UP, the largest
    logarithm of the scale, and how far it lies aside in sizes of the picture."""
    random = random_for(f"matching made-up {seed} {x}")
    log_scale, far = MADE_UP[x]
    angle, aside = random.uniform(-180, 180), random.uniform(0, 2 * np.pi)
    pair = make_fundus_pair(
        seed,
        MADE_UP_PIXELS,
        rotation_deg=angle,
        scale=float(np.exp(random.choice([-1, 1]) * log_scale)),
        shift=(far * np.cos(aside), far * np.sin(aside)),
        elastic_px=WARP_PIXELS,
    )
    return KnownPair(pair.fixed, pair.moving, pair.truth, pair.landmarks)


def _photo(path: Path) -> Image:
    """The photograph with WORKING_PIXELS on its longer side, three channels, a unit of 1 mm."""
    image = read_image(path)
    pixels = image.array[:, 0].transpose(1, 2, 0)
    scale = WORKING_PIXELS / max(pixels.shape[:2])
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    small = small.reshape(*small.shape[:2], -1)
    return Image(small.transpose(2, 0, 1)[:, None], Grid.of_picture(*small.shape[1::-1]))


def _turned(path: Path, angle: float, scale: float, kind: str = "") -> KnownPair:
    """A bent copy against the photograph under another lamp, turned and scaled."""
    original = _photo(path)
    random = random_for(f"matching {path.stem} {angle} {scale}")
    bend = smooth_warp(random, original.grid, WARP_PIXELS)
    lit = relit(random, original)
    if kind:
        lit = Image(DEGRADATIONS[kind](lit.array, random), lit.grid)
    moving, original_from_moving = turned_picture(lit, angle, scale)
    truth = Chain((bend, original_from_moving.inverse))
    return KnownPair(resample(original, bend, original.grid), moving, truth, _points(original))


def _scaled(path: Path, scale: float) -> KnownPair:
    """The middle of a photograph against all of it: below 1 the moving picture shows less."""
    pair = _turned(path, 15.0, 1.0)
    share = min(scale, 1 / scale)
    fixed, moving = pair.fixed, pair.moving
    if scale < 1:
        moving = _middle(moving, share)
    else:
        fixed = _middle(fixed, share)
    shown = _points(_middle(pair.fixed, share))
    return KnownPair(fixed, moving, pair.moving_from_fixed, shown)


def _middle(image: Image, share: float) -> Image:
    width, height, _ = image.grid.size
    left, top = round(width * (1 - share) / 2), round(height * (1 - share) / 2)
    return _cropped(image, left, width - left, top, height - top)


def _parted(path: Path, share: float) -> KnownPair:
    """Left and right parts of a photograph that have that share of each of them in common."""
    pair = _turned(path, 10.0, 1.0)
    width, height, _ = pair.fixed.grid.size
    part = 1 / (2 - share)
    fixed = _cropped(pair.fixed, 0, round(part * width), 0, height)
    columns, rows, _ = pair.moving.grid.size
    moving = _cropped(pair.moving, round((1 - part) * columns), columns, 0, rows)
    common = _cropped(pair.fixed, round((1 - part) * width), round(part * width), 0, height)
    return KnownPair(fixed, moving, pair.moving_from_fixed, _points(common))


def _degraded(path: Path, kind: str) -> KnownPair:
    return _turned(path, 20.0, 1.0, kind)


def _real(case: Case, angle: float) -> KnownPair:
    """A pair with landmarks; the moving picture turned and scaled unless angle is 0."""
    pair = case.load()
    affine = fit("affine", pair.fixed_points, pair.original_points)
    if not angle:
        return KnownPair(pair.fixed, pair.moving, affine, pair.fixed_points)
    scale = random_for(f"matching scale {case.name}").uniform(0.75, 1.3)
    moving, original_from_moving = turned_picture(pair.moving, angle, scale)
    truth = Chain((affine, original_from_moving.inverse))
    return KnownPair(pair.fixed, moving, truth, pair.fixed_points)


def _points(image: Image) -> np.ndarray:
    return foreground_points(image, 200)


def _cropped(image: Image, left: int, right: int, top: int, bottom: int) -> Image:
    matrix = image.grid.world_from_index.copy()
    matrix[:3, 3] += matrix[:3, 0] * left + matrix[:3, 1] * top
    array = np.ascontiguousarray(image.array[:, :, top:bottom, left:right])
    return Image(array, Grid((right - left, bottom - top, 1), matrix))


Degrade = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _blurred(array: np.ndarray, _random: np.random.Generator) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(channel[0], (0, 0), 3.0)[None] for channel in array])


def _noisy(array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    noise = random.normal(0, 18, size=array.shape) * (array > 8)
    return np.clip(array + noise, 0, 255).astype(np.uint8)


def _hazy(array: np.ndarray, _random: np.random.Generator) -> np.ndarray:
    """Light that is scattered by a cataract: a quarter of the contrast is left."""
    return np.where(array > 8, 0.25 * array + 110, array).astype(np.uint8)


def _negative(array: np.ndarray, _random: np.random.Generator) -> np.ndarray:
    """Bright vessels, as in an angiogram, and one channel."""
    green = array[min(1, len(array) - 1)][None]
    return np.where(green > 8, 255 - green, 0).astype(np.uint8)


DEGRADATIONS: dict[str, Degrade] = {
    "none": lambda array, _random: array,
    "blur": _blurred,
    "noise": _noisy,
    "haze": _hazy,
    "negative": _negative,
}
