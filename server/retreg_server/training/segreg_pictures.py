"""What segreg-fundus learns from: pictures of retinas, aligned, with the vessels that they show.

Made-up eyes are rendered in colour and as an angiogram by the same camera; real ones are a
photograph and its manual vessel mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from retreg.errors import FileError
from retreg.files import read_image
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.phantoms.cameras import FIELD_OF_VIEW, View, photograph
from retreg_server.phantoms.eye import Eye, make_eye
from retreg_server.phantoms.strokes import draw_segments
from retreg_server.registration.preprocessing.even_light import FIELD, even_light
from retreg_server.registration.preprocessing.retina_picture import retina_picture
from retreg_server.registration.preprocessing.vesselness import vessel_maps

SIZE = round(FIELD / (2 * FIELD_OF_VIEW))  # of a made-up picture whose field of view is FIELD
DIAMETER = 768  # at which the vesselness filter is used
LAYERS = ("dark", "bright", "vessels", "ridges", "inside")


@dataclass(frozen=True, eq=False)
class Plate:
    """One retina. layers: (1, 5, h, w) float32, in the order of LAYERS.

    dark, bright: what the network is shown of a picture with dark or bright vessels. vessels: 0 to
    1, the truth. ridges: the filter's map of the dark picture. inside: the field of view. camera:
    of which it has the style.
    """

    camera: str
    layers: torch.Tensor

    def on(self, device: str) -> Plate:
        """The same on another device."""
        return Plate(self.camera, self.layers.to(device))


def made_up_plates(stored: Path, first: int, count: int) -> list[Plate]:
    """Plates of the eyes with seeds first, first + 1, …; kept in the file stored (.npz).

    Making them takes minutes and shows a progress bar.
    """
    if stored.exists():
        with np.load(stored, allow_pickle=False) as kept:
            if kept["seeds"].tolist() == list(range(first, first + count)):
                return [Plate("made-up", torch.from_numpy(each).float()) for each in kept["layers"]]
    bar = tqdm(range(first, first + count), "making up eyes", unit="eye", mininterval=5)
    layers = np.stack([_made_up(seed) for seed in bar])
    np.savez_compressed(stored, seeds=np.arange(first, first + count), layers=layers)
    return made_up_plates(stored, first, count)


def real_plates(folder: Path) -> list[Plate]:
    """Every photograph in the folder (NAME.jpg or .png) beside whose vessels there is a mask.

    Masks are named NAME_vessels.png or NAME_1stHO_vessels.png. Raises FileError without any.
    """
    found = []
    for mask in sorted(folder.glob("*_vessels.png")) if folder.is_dir() else []:
        name = mask.stem.removesuffix("_vessels").removesuffix("_1stHO")
        photos = [folder / f"{name}{end}" for end in (".jpg", ".png")]
        for photo in (each for each in photos if each.is_file()):
            layers = _photographed(read_image(photo), read_image(mask))
            found.append(Plate(name.split("_")[0], torch.from_numpy(layers)[None]))
    if not found:
        raise FileError(
            f"The folder {folder.name} holds no photographs with vessel masks; pairs named "
            "NAME.jpg and NAME_vessels.png were expected."
        )
    return found


def lone_masks(folder: Path) -> list[Plate]:
    """Vessel masks without a photograph: only vessels and inside are filled."""
    found = []
    for mask in sorted(folder.glob("HRF_*_vessels.png")):
        array = read_image(mask).array[0, 0].astype(np.float32)
        scale = FIELD / array.shape[1]
        size = round(scale * array.shape[1]), round(scale * array.shape[0])
        vessels = cv2.resize(array / max(array.max(), 1), size, interpolation=cv2.INTER_AREA)
        layers = np.zeros((len(LAYERS), *vessels.shape), np.float32)
        layers[2], layers[4] = vessels, 1
        found.append(Plate("HRF", torch.from_numpy(layers)[None]))
    return found


def _made_up(seed: int) -> np.ndarray:
    """(1, 5, SIZE, SIZE) float16 of one eye in colour and as an angiogram."""
    rng = np.random.default_rng(seed)
    eye = make_eye(rng)
    flip = -1.0 if seed % 2 else 1.0
    middle, unit = (SIZE - 1) / 2, FIELD_OF_VIEW * SIZE
    axis = (np.arange(SIZE) - middle) / unit
    x, y = np.meshgrid(flip * axis, axis)
    view = View(x, y, lambda retina: retina * (flip * unit, unit) + middle, unit)
    colour, angiogram = (
        Image(photograph(eye, view, modality, rng)[:, None], Grid.of_picture(SIZE, SIZE))
        for modality in ("colour", "angiography")
    )
    layers = _layers(colour, _covered(eye, view), angiogram)
    return layers[None].astype(np.float16)


def _covered(eye: Eye, view: View) -> np.ndarray:
    """(h, w) share of each pixel that vessels cover."""
    cover = np.zeros((view.size, view.size), np.float32)
    for tree in (eye.arteries, eye.veins):
        pixels, inner = view.pixels_of(tree.points), tree.parents >= 0
        ends = pixels[tree.parents[inner]], pixels[inner]
        radii = tree.radii[inner] * view.magnification
        cover = np.maximum(cover, draw_segments(*ends, radii, cover.shape)[0])
    return cover


def _photographed(photo: Image, mask: Image) -> np.ndarray:
    vessels = mask.array[0, 0].astype(np.float32)
    return _layers(photo, vessels / max(float(vessels.max()), 1.0), None)


def _layers(dark: Image, vessels: np.ndarray, bright: Image | None) -> np.ndarray:
    """(5, h, w) float32 on the pixels of the field of view of dark, whose longer side is FIELD.

    vessels: (rows, columns) of the pictures. Without a bright picture the negative is used.
    """
    picture = retina_picture(dark, "fixed", FIELD)
    shown = even_light(picture.grey, picture.inside)
    negative = -shown
    shape = shown.shape
    if bright is not None:
        grey = retina_picture(bright, "fixed", FIELD)
        negative = _placed(even_light(grey.grey, grey.inside), grey.world_from_pixel,
                           picture.world_from_pixel, shape)  # fmt: skip
    large = retina_picture(dark, "fixed", DIAMETER)
    ridges = vessel_maps(large.grey, large.inside).best
    ridges = cv2.resize(ridges, shape[::-1], interpolation=cv2.INTER_AREA)
    truth = _placed(vessels, dark.grid.world_from_index, picture.world_from_pixel, shape)
    inside = picture.inside.astype(np.float32)
    return np.stack([shown, negative, truth * inside, ridges, inside]).astype(np.float32)


def _placed(
    values: np.ndarray,
    world_from_own: np.ndarray,
    world_from_pixel: np.ndarray,
    shape: tuple[int, ...],
) -> np.ndarray:
    """values (rows, columns) on pixels of the given shape, averaged where they shrink."""
    own_from_pixel = np.linalg.inv(world_from_own) @ world_from_pixel
    shrink = abs(float(own_from_pixel[0, 0]))
    smooth = cv2.GaussianBlur(values, (0, 0), 0.4 * shrink) if shrink > 1 else values
    matrix = own_from_pixel[:2][:, [0, 1, 3]]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    placed: np.ndarray = cv2.warpAffine(smooth, matrix, shape[::-1], flags=flags)
    return placed
