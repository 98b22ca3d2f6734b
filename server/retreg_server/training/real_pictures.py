"""Real pairs of retinal pictures to look at during training: logged, never trained on."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from retreg.errors import FileError
from retreg.files import read_image
from retreg_server.registration.keymorph.detection import detect, irls_affine
from retreg_server.registration.keymorph.inputs import vessel_square
from retreg_server.registration.networks.keypoint_net import KeypointNet
from retreg_server.registration.preprocessing.retina_picture import retina_picture

DIAMETER = 768
OVERSAMPLING = 2
TURNS = (0, 1)  # quarter turns of the moving picture


@dataclass(frozen=True, eq=False)
class RealPair:
    """squares: two (1, 1, n, n) vessel maps. landmarks: (2, m, 2) normalised points of both."""

    name: str
    squares: tuple[torch.Tensor, torch.Tensor]
    landmarks: torch.Tensor


def read_real_pairs(folder: Path, pixels: int) -> list[RealPair]:
    """Pairs NAME_fixed.png, NAME_moving.png with NAME_landmarks.csv. Raises FileError if none."""
    tables = sorted(folder.glob("*_landmarks.csv"))
    if not tables:
        raise FileError(f"The folder {folder.name} holds no pairs with *_landmarks.csv files.")
    return [_read_pair(table, pixels) for table in tables]


@torch.no_grad()
def pair_errors(
    net: KeypointNet, template: torch.Tensor, pairs: list[RealPair]
) -> dict[str, float]:
    """Landmark error of the affine from the keypoints alone, in per cent of the picture's side."""
    errors = []
    device = next(net.parameters()).device
    for pair in pairs:
        fixed, moving = (square.to(device) for square in pair.squares)
        pixels = fixed.shape[-1] // OVERSAMPLING
        fixed_found = detect(net, fixed, template, pixels, recentre=False)[0]
        for turns in TURNS:
            picture = torch.rot90(moving, turns, (2, 3))
            moving_found = detect(net, picture, template, pixels, recentre=False)[0]
            weights = (fixed_found.variance * moving_found.variance).clamp_min(1e-8).rsqrt()
            matrix, _ = irls_affine(
                fixed_found.points, moving_found.points, weights / weights.mean()
            )
            moved = pair.landmarks[0] @ matrix[:, :2].T.cpu() + matrix[:, 2].cpu()
            errors.append((moved - _turned_points(pair.landmarks[1], turns)).norm(dim=1).median())
    if not errors:
        return {}
    found = 50 * torch.stack(errors)
    return {
        "real_affine": float(found.median()),
        "real_affine_worst": float(found.max()),
        "real_within_5_percent": float((found < 5).float().mean()),
    }


def _turned_points(points: torch.Tensor, turns: int) -> torch.Tensor:
    """Where points x, y go when the picture is turned by torch.rot90 of the axes y, x."""
    for _ in range(turns):
        points = torch.stack([points[:, 1], -points[:, 0]], dim=1)
    return points


def _read_pair(table: Path, pixels: int) -> RealPair:
    name = table.name.removesuffix("_landmarks.csv")
    with table.open(encoding="utf-8") as file:
        lines = [line for line in file if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    squares, landmarks = [], []
    for role in ("fixed", "moving"):
        picture = retina_picture(read_image(table.with_name(f"{name}_{role}.png")), role, DIAMETER)
        square, matrix = vessel_square(picture, OVERSAMPLING * pixels)
        world = np.array([[float(row[f"{role}_x"]), float(row[f"{role}_y"]), 0] for row in rows])
        landmarks.append(picture.pixels(world) @ matrix[:, :2].T + matrix[:, 2])
        squares.append(square)
    return RealPair(name, (squares[0], squares[1]), torch.from_numpy(np.stack(landmarks)).float())
