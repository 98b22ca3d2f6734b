"""From where a registration starts when somebody knows better than the search."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retreg.background import background
from retreg.files.transforms import read_transform
from retreg.image import Image
from retreg.placement_numbers import placement_numbers
from retreg.transforms import Affine

IDENTITY, CENTRES, GEOMETRY = "identity", "centres", "geometry"
WORDS = (IDENTITY, CENTRES, GEOMETRY)
_POINTS = 40  # along an axis, that are enough for a centre


def initial_map(wanted: str | Path, fixed: Image, moving: Image) -> Affine:
    """The map from fixed to moving points (LPS mm) near which a result is to be looked for.

    wanted: identity, as the images lie in the world; centres, the centre of what one shows on that
    of the other (the mean of all places, weighed by how much they stand out from the background);
    geometry, the middle of one grid on that of the other; or the path of a transform as of
    read_transform, of which the affine counts that is nearest to it on the fixed image. Raises
    FileError for a file that is no transform.
    """
    if wanted == IDENTITY:
        return Affine.identity()
    if wanted == CENTRES:
        return _shift(_centre_of_content(fixed), _centre_of_content(moving))
    if wanted == GEOMETRY:
        return _shift(fixed.grid.centre, moving.grid.centre)
    transform = read_transform(wanted, fixed.grid, moving.grid)
    return Affine(placement_numbers(transform, fixed.grid).matrix)


def _shift(start: np.ndarray, end: np.ndarray) -> Affine:
    matrix = np.eye(4)
    matrix[:3, 3] = end - start
    return Affine(matrix)


def _centre_of_content(image: Image) -> np.ndarray:
    """(3,) LPS mm, of what counts."""
    step = max(1, max(image.grid.size) // _POINTS)
    part = (slice(None, None, step),) * 3
    stands_out = abs(image.grey()[part] - np.float32(background(image).mean()))
    if image.counted is not None:
        stands_out = stands_out * image.counted[part]
    if not stands_out.any():
        return image.grid.centre
    k, j, i = (np.average(x, weights=stands_out) for x in step * np.indices(stands_out.shape))
    centre: np.ndarray = image.grid.world(np.array([[i, j, k]]))[0]
    return centre
