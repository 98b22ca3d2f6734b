"""What the network of segreg-fundus sees of pictures, and what its answers say about them."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch.nn import functional

from retreg.geometry import Grid
from retreg.image import Image
from retreg.resample import resample
from retreg.transforms import Affine
from retreg_server.registration.fundus.pixel_maps import PixelMap
from retreg_server.registration.fundus.prepared_picture import PreparedPicture
from retreg_server.registration.fundus.vessel_pyramid import PixelDisplacement
from retreg_server.registration.networks.segreg_net import MULTIPLE, STRIDE, SegRegNet
from retreg_server.registration.preprocessing.even_light import FIELD, even_light
from retreg_server.registration.preprocessing.retina_picture import Picture, retina_picture
from retreg_server.registration.preprocessing.vesselness import vessel_maps

FULL, SMALL = 3, 2  # pixels of the working picture (768) per pixels that the network sees (512)


@torch.no_grad()
def joint_field(
    net: SegRegNet,
    fixed: PreparedPicture,
    moving: PreparedPicture,
    mapped: PixelMap,
    device: torch.device,
) -> PixelDisplacement:
    """d for which x goes to mapped(x + d(x)), both in pixels of the working pictures.

    The mean of what the network answers to the pictures and to the pictures upside down.
    """
    net = net.to(device)
    shown = _shrunk(fixed.picture)
    height, width = shown.shape
    x, y = np.meshgrid(*(_full(np.arange(n, dtype=np.float64)) for n in (width, height)))
    places = _small(mapped(np.column_stack([x.ravel(), y.ravel()])))
    look = np.ascontiguousarray(places.reshape(height, width, 2), dtype=np.float32)
    found = cv2.remap(_shrunk(moving.picture), look, None, cv2.INTER_LINEAR)
    features = [
        net.segmented(_both_ways(_padded(each).to(device)), _branch(picture))[0]
        for each, picture in ((shown, fixed), (found, moving))
    ]
    upright, turned = net.nodes(*features).chunk(2)
    nodes = ((upright - turned.flip(2, 3)) / 2)[0, :, : height // STRIDE, : width // STRIDE]
    pixels = nodes.movedim(0, -1).cpu().numpy() * (FULL / SMALL)
    return PixelDisplacement(np.ascontiguousarray(pixels), STRIDE * FULL // SMALL)


@torch.no_grad()
def vessel_probability(net: SegRegNet, image: Image) -> Image:
    """How likely each pixel of a picture of the retina shows a vessel, on its own pixels.

    float32 from 0 to 1, 0 outside the field of view. Raises RegistrationError for a blank picture.
    """
    picture = retina_picture(image, "fixed", FIELD)
    shown = even_light(picture.grey, picture.inside)
    large = retina_picture(image, "fixed", FIELD * FULL // SMALL)
    branch = vessel_maps(large.grey, large.inside).stronger
    seen = net.segmented(_both_ways(_padded(shown)), branch)[1]
    height, width = shown.shape
    both = (seen[0, 0] + seen[1, 0].flip(0, 1)) / 2
    values = both[:height, :width].numpy() * picture.inside
    return resample(_in_world(values, picture), Affine.identity(), image.grid, fill=0)


def _in_world(values: np.ndarray, picture: Picture) -> Image:
    """(h, w) on the pixels of the picture, as an image."""
    height, width = values.shape
    return Image(values[None, None], Grid((width, height, 1), picture.world_from_pixel))


def _shrunk(picture: Picture) -> np.ndarray:
    """(h, w) of the working picture as the network is shown it."""
    size = tuple(round(n * SMALL / FULL) for n in picture.grey.shape[::-1])
    grey = cv2.resize(picture.grey, size, interpolation=cv2.INTER_AREA)
    inside = cv2.resize(picture.inside.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return even_light(grey, inside > 0)


def _full(small: np.ndarray) -> np.ndarray:
    """Coordinates in the working picture of those in what the network sees."""
    return (small + 0.5) * (FULL / SMALL) - 0.5


def _small(full: np.ndarray) -> np.ndarray:
    """The inverse of _full."""
    return (full + 0.5) * (SMALL / FULL) - 0.5


def _branch(picture: PreparedPicture) -> str:
    """The branch of the network for the vessels of the picture that are used."""
    dark = (picture.maps.stronger == "dark") == (picture.polarity == 0)
    return "dark" if dark else "bright"


def _both_ways(shown: torch.Tensor) -> torch.Tensor:
    """The picture (1, 1, h, w), and the picture upside down: (2, 1, h, w)."""
    return torch.cat([shown, shown.flip(2, 3)])


def _padded(shown: np.ndarray) -> torch.Tensor:
    """(1, 1, h, w) with sides that the network can take; 0 beyond the edge."""
    height, width = shown.shape
    padding = [0, -width % MULTIPLE, 0, -height % MULTIPLE]
    return functional.pad(torch.from_numpy(np.ascontiguousarray(shown))[None, None], padding)
