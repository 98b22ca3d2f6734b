"""Eyes seen in several ways at once: layers of vessel strength that lie on each other exactly.

A made-up eye is photographed in colour or red-free light and as an angiogram from the same place.
Of a real eye there are the mask of its vessels and, where there is one, its photograph. The corners
of the vessels are the points that a detector shall find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from retreg_server.phantoms.cameras import Modality
from retreg_server.registration.preprocessing.vessel_corners import vessel_corners
from retreg_server.training.eyes import CANVAS, READER, Retina, phantom_in

MOST_CORNERS, APART = 400, 6.0  # of a canvas, pixels of the canvas between them
WEAKEST_CORNER = 0.03  # of the strongest
PLAIN: tuple[Modality, Modality] = ("colour", "redfree")


@dataclass(frozen=True, eq=False)
class LayeredEye:
    """layers: (n, 2, CANVAS, CANVAS), each with vessel strength 0 to 1 and where it is known.

    corners: (k, 2) normalised x, y of the canvas.
    """

    layers: torch.Tensor
    corners: torch.Tensor
    is_made_up: bool

    def on(self, device: str) -> LayeredEye:
        """The same on another device."""
        return LayeredEye(self.layers.to(device), self.corners.to(device), self.is_made_up)


def made_up_eyes(stored: Path, first: int, count: int) -> list[LayeredEye]:
    """The eyes of seeds first, first + 1, …; kept in the file stored (.npz).

    Making them takes minutes and shows a progress bar.
    """
    seeds = list(range(first, first + count))
    if not _holds(stored, seeds):
        bar = tqdm(seeds, "making up eyes", unit="eye", mininterval=5)
        made = [phantom_in(seed, (PLAIN[seed // 2 % 2], "angiography")) for seed in bar]
        canvases = np.stack([torch.cat([each.canvas for each in eye]).numpy() for eye in made])
        bytes_ = np.rint(255 * canvases).astype(np.uint8)
        np.savez_compressed(stored, seeds=np.array(seeds), canvases=bytes_)
    with np.load(stored, allow_pickle=False) as kept:
        canvases = kept["canvases"].astype(np.float32) / 255
    return [_eye(torch.from_numpy(each), True) for each in canvases]


def real_eyes(retinas: Sequence[Retina]) -> list[LayeredEye]:
    """The eyes of retinas that eyes.real_retinas found: mask and photograph, or the mask alone."""
    photos = {each.name: each for each in retinas}
    eyes = []
    for mask in retinas:
        name = mask.name.removesuffix(READER)
        beside = [photos[name]] if READER in mask.name and name in photos else []
        if READER in mask.name or name.startswith("HRF"):
            eyes.append(_eye(torch.cat([each.canvas for each in [mask, *beside]]), False))
    return eyes


def _holds(stored: Path, seeds: list[int]) -> bool:
    if not stored.exists():
        return False
    with np.load(stored, allow_pickle=False) as kept:
        return bool(kept["seeds"].tolist() == seeds)


def _eye(layers: torch.Tensor, is_made_up: bool) -> LayeredEye:
    known = layers[:, 1].amin(dim=0).numpy() > 0.5
    mean = layers[:, 0].mean(dim=0).numpy()
    return LayeredEye(layers, torch.from_numpy(_corners(mean, known)), is_made_up)


def _corners(strength: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Normalised x, y (k, 2) float32 of the corners of the vessels, strongest first."""
    inside = cv2.erode(known.astype(np.uint8), np.ones((9, 9), np.uint8), borderValue=0)
    soft = cv2.GaussianBlur(strength, (0, 0), 1.0)
    points = vessel_corners(soft, inside > 0, MOST_CORNERS, WEAKEST_CORNER, APART)
    return ((2 * points + 1) / CANVAS - 1).astype(np.float32)
