"""Masks: which voxels of an image count, where a lesion, a scar or a caption must not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from retreg.errors import InputError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.resample import resample
from retreg.transforms import Affine

_LABELS = 32  # with more values than these a mask is a photograph of one, as JPEG makes it
_SAME_SHAPE = 0.01  # by which the aspects of a picture and of its smaller mask may differ


def counting(image: Image, mask: Image, role: str) -> Image:
    """The image of which only the voxels count where mask is not 0.

    mask: on the grid of image, or on another one that is resampled to it (nearest neighbour) by its
    place in the world; what it does not reach does not count. The mask of a picture without a scale
    has the shape of the picture, at any size. Colours are taken together. role: "fixed" or
    "moving", for the message. Raises InputError for a mask that does not fit or leaves nothing.
    """
    if image.is_picture != mask.is_picture:
        kinds = ["picture" if each.is_picture else "volume" for each in (mask, image)]
        raise InputError(
            f"The {role} mask is a {kinds[0]} but the image is a {kinds[1]}; give a mask of the "
            "same kind."
        )
    where = Image(_drawn(mask).astype(np.uint8)[None], _grid_of(mask, image, role))
    counted = resample(where, Affine.identity(), image.grid, nearest=True, fill=0).array[0] > 0
    if not counted.any():
        raise InputError(
            f"The {role} mask leaves nothing of the image; what is not 0 in it counts, so check "
            "that it lies on the image and is not the wrong way round."
        )
    return replace(image, counted=counted)


def counting_if_given(image: Image, mask: Image | None, role: str) -> Image:
    """As counting; the image itself without a mask."""
    return image if mask is None else counting(image, mask, role)


def share_counted(image: Image) -> float:
    """The share (0 to 1) of the voxels of an image that count."""
    return 1.0 if image.counted is None else float(image.counted.mean())


def _drawn(mask: Image) -> np.ndarray:
    """Where (k, j, i) a mask is drawn; a channel behind one or three colours is the opacity."""
    channels = {2: 1, 4: 3}.get(len(mask.array), len(mask.array))
    values = np.nan_to_num(mask.array[:channels]).max(axis=0)
    is_photograph = mask.is_picture and len(np.unique(values)) > _LABELS
    drawn: np.ndarray = values > (values.max() / 2 if is_photograph else 0)
    return drawn


def _grid_of(mask: Image, image: Image, role: str) -> Grid:
    """Where the mask lies: a picture of pixels has no other place than that of its image."""
    if not image.is_picture or not (
        mask.grid.size == image.grid.size or mask.grid.is_unscaled_picture
    ):
        return mask.grid
    step = np.array(image.grid.size) / np.array(mask.grid.size)
    if abs(step[0] / step[1] - 1) > _SAME_SHAPE:
        sizes = " and ".join(" x ".join(map(str, each.grid.size[:2])) for each in (mask, image))
        raise InputError(
            f"The {role} mask and its image have {sizes} pixels, which are of different shapes; "
            "draw the mask on the image."
        )
    image_from_mask = np.diag([*step, 1.0])
    image_from_mask[:3, 3] = (step - 1) / 2
    return Grid(mask.grid.size, image.grid.world_from_index @ image_from_mask)
