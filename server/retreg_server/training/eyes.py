"""Retinas to photograph in training: vessel maps of made-up and of real eyes.

A retina is a square canvas of vessel strength with normalised coordinates. Where its optic disc
and fovea are known, they are its frame: keypoints are points of a lattice that is fixed in the
frame (origin at the disc, x towards the fovea, unit the distance between them), so that the same
keypoint means the same place in every eye, left or right.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from retreg.errors import FileError
from retreg.files import read_image
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.phantoms.cameras import Modality, View, photograph
from retreg_server.phantoms.eye import make_eye
from retreg_server.registration.numerics.farthest_points import spread_out
from retreg_server.registration.preprocessing.retina_picture import retina_picture
from retreg_server.registration.preprocessing.vesselness import vessel_maps

CANVAS = 512
PHANTOM_SIZE, PHANTOM_REACH = 896, 1.45  # pixels, and field-of-view radii that are shown
MODALITIES: tuple[Modality, ...] = ("colour", "redfree", "angiography")
LATTICE_CENTRE, LATTICE_RADII = (0.6, 0.0), (1.5, 1.25)
READER = "_1stHO"  # ends the names of the masks of CHASE_DB1 that are used
TEXTURE_REACH = 0.62  # half side of textures over that of the canvas; lies in the field of view
FRAMES = Path(__file__).with_name("retina_frames.csv")


@dataclass(frozen=True, eq=False)
class Retina:
    """canvas: (1, 2, CANVAS, CANVAS), vessel strength 0 to 1 and where it is known (0 or 1).

    disc, fovea: (2,) normalised x, y of the canvas, or None. real: made from a picture or mask.
    """

    name: str
    canvas: torch.Tensor
    disc: torch.Tensor | None = None
    fovea: torch.Tensor | None = None

    def on(self, device: str) -> Retina:
        """The same on another device."""
        places = [None if place is None else place.to(device) for place in (self.disc, self.fovea)]
        return Retina(self.name, self.canvas.to(device), *places)

    @property
    def frame(self) -> np.ndarray:
        """Disc and fovea (2, 2), not numbers where they are not known."""
        if self.disc is None or self.fovea is None:
            return np.full((2, 2), np.nan)
        return torch.stack([self.disc, self.fovea]).numpy()

    def keypoints(self, lattice: torch.Tensor) -> torch.Tensor | None:
        """The lattice points (k, 2) on the canvas, or None when the frame is not known."""
        if self.disc is None or self.fovea is None:
            return None
        ahead = self.fovea - self.disc
        aside = torch.stack([-ahead[1], ahead[0]])
        return self.disc + lattice[:, :1] * ahead + lattice[:, 1:] * aside


def lattice(count: int) -> torch.Tensor:
    """Keypoints (count, 2) in the frame of disc and fovea, spread over an ellipse around both."""
    axis = torch.linspace(-1, 1, 61)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    disc = torch.stack([x, y], dim=-1)[x**2 + y**2 <= 1]
    spread = disc * torch.tensor(LATTICE_RADII) + torch.tensor(LATTICE_CENTRE)
    return spread_out(spread, count)


def phantom_retina(seed: int) -> Retina:
    """The vessel map of a photograph of a made-up eye, in one modality, left or right."""
    return phantom_in(seed, (MODALITIES[seed % len(MODALITIES)],))[0]


def phantom_in(seed: int, modalities: Sequence[Modality]) -> list[Retina]:
    """The vessel maps of one made-up eye, one from a photograph in each of the modalities."""
    rng = np.random.default_rng(seed)
    eye = make_eye(rng)
    flip = -1.0 if seed % 2 else 1.0
    middle, unit = (PHANTOM_SIZE - 1) / 2, 0.5 * PHANTOM_SIZE / PHANTOM_REACH
    axis = (np.arange(PHANTOM_SIZE) - middle) / unit
    x, y = np.meshgrid(flip * axis, axis)
    view = View(x, y, lambda retina: retina * (flip * unit, unit) + middle, unit)
    disc, fovea = (
        torch.tensor([flip, 1.0]) * torch.from_numpy(place).float() / PHANTOM_REACH
        for place in (eye.disc, eye.fovea)
    )
    found = []
    for modality in modalities:
        photo = photograph(eye, view, modality, rng)
        picture = Image(photo[:, None], Grid.of_picture(PHANTOM_SIZE, PHANTOM_SIZE))
        found.append(Retina(f"phantom-{seed}", _canvas_of_picture(picture), disc, fovea))
    return found


def phantom_retinas(stored: Path, first: int, count: int) -> list[Retina]:
    """The made-up eyes of seeds first, first + 1, …; kept in the file stored (.npz).

    Making them takes minutes and shows a progress bar.
    """
    if stored.exists():
        with np.load(stored, allow_pickle=False) as kept:
            seeds, canvases, frames = kept["seeds"], kept["canvases"], kept["frames"]
        if seeds.tolist() == list(range(first, first + count)):
            return [
                Retina(
                    f"phantom-{seed}", torch.from_numpy(canvas).float() / 255,
                    *torch.from_numpy(frame),
                )
                for seed, canvas, frame in zip(seeds, canvases, frames, strict=True)
            ]  # fmt: skip
    bar = tqdm(range(first, first + count), "making up eyes", unit="eye", mininterval=5)
    made = [phantom_retina(seed) for seed in bar]
    np.savez_compressed(
        stored,
        seeds=np.arange(first, first + count),
        canvases=np.stack([(255 * each.canvas).round().byte().numpy() for each in made]),
        frames=np.stack([each.frame for each in made]),
    )
    return phantom_retinas(stored, first, count)


def real_retinas(folder: Path) -> list[Retina]:
    """Every vessel mask (*_vessels.png) in the folder, and every photograph beside one.

    Raises FileError when there are none.
    """
    masks = sorted(folder.glob("*_vessels.png")) if folder.is_dir() else []
    if not masks:
        raise FileError(
            f"The folder {folder.name} holds no vessel masks; files named *_vessels.png were "
            "expected."
        )
    frames = _frames()
    found = [_mask_retina(file, frames) for file in masks]
    for file in sorted(folder.glob("*.jpg")):
        image = read_image(file)
        places = _places(frames.get(file.stem), *image.grid.size[:2])
        found.append(Retina(file.stem, _canvas_of_picture(image), *places))
    return found


def clutter_textures(retinas: list[Retina]) -> list[torch.Tensor]:
    """What vessel maps of photographs show beside the vessels of their masks: (1, 1, n, n) each.

    retinas: those of real_retinas. The texture is cut from the middle of the field of view; where
    a vessel was, it is continued with texture from elsewhere.
    """
    masks = {each.name.removesuffix(READER): each for each in retinas if READER in each.name}
    low, high = round((1 - TEXTURE_REACH) * CANVAS / 2), round((1 + TEXTURE_REACH) * CANVAS / 2)
    middle = (..., slice(low, high), slice(low, high))
    textures = []
    for photo in retinas:
        if photo.name not in masks:
            continue
        strength, vessels = photo.canvas[:, :1], masks[photo.name].canvas[:, :1]
        beside = (functional.max_pool2d(vessels, 9, 1, 4) < 0.1).float()
        texture = (strength * beside)[middle]
        textures.append(texture + (1 - beside[middle]) * texture.roll((91, 67), (2, 3)))
    return textures


def _places(shares: np.ndarray | None, width: int, height: int) -> tuple[torch.Tensor, ...]:
    """Disc and fovea on the canvas from shares (2, 2) of the picture's width and height."""
    if shares is None:
        return ()
    side = max(width, height)
    centred = (shares - 0.5) * (width, height)
    return tuple(torch.from_numpy(2 * centred / side).float())


def _mask_retina(file: Path, frames: dict[str, np.ndarray]) -> Retina:
    mask = read_image(file).array[0, 0].astype(np.float32)
    mask = np.sqrt(cv2.GaussianBlur(mask / max(mask.max(), 1), (0, 0), mask.shape[1] / 700))
    height, width = mask.shape
    side = max(height, width)
    square, known = np.zeros((2, side, side), np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = mask
    known[top : top + height, left : left + width] = 1
    name = file.stem.removesuffix("_vessels")
    places = _places(frames.get(name.removesuffix(READER)), width, height)
    return Retina(name, _canvas(square, known), *places)


def _canvas_of_picture(image: Image) -> torch.Tensor:
    """Vessels of a whole picture, in the middle of the canvas, as the fundus models see them."""
    size = np.array(image.grid.size[:2])
    picture = retina_picture(image, "fixed", 768)
    maps = vessel_maps(picture.grey, picture.inside)
    ends = [(size - 1) / 2 + sign * size.max() / 2 for sign in (-1, 1)]
    corner = picture.pixels(np.pad(ends, ((0, 0), (0, 1))))
    scale = (corner[1, 0] - corner[0, 0]) / CANVAS
    matrix = np.array([[scale, 0, corner[0, 0] + scale / 2], [0, scale, corner[0, 1] + scale / 2]])
    strength, known = (
        cv2.warpAffine(
            layer.astype(np.float32), matrix, (CANVAS, CANVAS),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        for layer in (cv2.GaussianBlur(maps.best, (0, 0), 0.4 * scale), maps.valid)
    )  # fmt: skip
    return _canvas(strength, known)


def _canvas(strength: np.ndarray, known: np.ndarray) -> torch.Tensor:
    layers = [
        cv2.resize(layer, (CANVAS, CANVAS), interpolation=cv2.INTER_AREA)
        for layer in (strength, known)
    ]
    return torch.from_numpy(np.stack(layers))[None]


def _frames() -> dict[str, np.ndarray]:
    """Disc and fovea ((2, 2) shares of width and height) of real pictures, read off by eye.

    The fovea of CHASE_DB1 lies at the rim of the picture and is known to about a tenth of its
    distance from the disc.
    """
    with FRAMES.open(encoding="utf-8") as file:
        return {
            row["name"]: np.array(
                [[row["disc_x"], row["disc_y"]], [row["fovea_x"], row["fovea_y"]]], dtype=float
            )
            for row in csv.DictReader(file)
        }
