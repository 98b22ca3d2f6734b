"""Round views cut from a large picture under known maps, and what a mosaic makes of these."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from retreg.files import read_image, read_transform

FIELD = 0.96  # of half the side of a view is its round field
BEND = 0.004  # of the side: how far views bend


@dataclass(frozen=True)
class Cut:
    """A view of size pixels a side: where each of its pixels lies in the large picture."""

    size: int
    middle: np.ndarray
    linear: np.ndarray
    bend: np.ndarray

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Points (n, 2) of the large picture that pixels (n, 2) show."""
        half = (self.size - 1) / 2
        u, v = ((pixels - half) / half).T
        bent = pixels - half + np.stack([u * u, u * v, v * v], axis=1) @ self.bend.T
        return bent @ self.linear.T + self.middle

    def shows(self, pixels: np.ndarray) -> np.ndarray:
        """(n,) whether pixels (n, 2) lie within the round field."""
        half = (self.size - 1) / 2
        return np.linalg.norm(pixels - half, axis=1) < FIELD * half


def cut(large: np.ndarray, share: tuple[float, float], size: int, scale: float, rng) -> tuple:
    """A view (size, size, 3) uint8 around a place, given by shares of a picture, and its Cut."""
    angle = rng.uniform(-0.2, 0.2)
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretched = np.eye(2) + rng.uniform(-0.015, 0.015, (2, 2))
    linear = scale * rng.uniform(0.94, 1.06) * turned @ stretched
    middle = np.array(share) * large.shape[1::-1]
    found = Cut(size, middle, linear, rng.uniform(-BEND, BEND, (2, 3)) * size)
    pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).reshape(-1, 2) * 1.0
    x, y = found(pixels).astype(np.float32).T.reshape(2, size, size)
    view = cv2.remap(large, x, y, cv2.INTER_CUBIC).astype(float) * rng.uniform(0.8, 1.15)
    view += rng.normal(0, 1.5, view.shape)
    view[~found.shows(pixels).reshape(size, size)] = 2
    return np.clip(view, 0, 255).astype(np.uint8), found


def seam_errors(out: Path, cuts: dict[str, Cut], step: int = 6) -> np.ndarray:
    """By how many of their own pixels two views show different places at one place of a mosaic."""
    grid = read_image(out / "mosaic.png").grid
    shown = {}
    for view in json.loads((out / "mosaic.json").read_text("utf-8"))["views"]:
        if view["placed"]:
            known = cuts[view["name"]]
            pixels = read_transform(out / view["transform"], grid, grid)(grid.lattice(step))[:, :2]
            shown[view["name"]] = known.shows(pixels), known(pixels)
    errors = []
    for one, other in combinations(shown, 2):
        both = shown[one][0] & shown[other][0]
        apart = np.linalg.norm(shown[one][1][both] - shown[other][1][both], axis=1)
        errors.append(apart / np.sqrt(np.linalg.det(cuts[one].linear)))
    return np.concatenate(errors)
