"""The mean of aligned images as running sums: no image stays in memory, and any can leave again."""

from __future__ import annotations

import numpy as np

from retreg.geometry import Grid
from retreg.image import Image
from retreg.resample import resample
from retreg.transforms import Transform

BARELY = 1e-3  # a voxel that less than this share of an image shows is not seen


class RunningMean:
    """The average on grid of images under their transforms from it, float32.

    Each is scaled so that its 1st and 99th percentile become 0 and 1; a voxel is averaged over
    the images that show it, with their shares in it. Only the sums are kept, so an image costs no
    memory once it is added. channels: of the mean; an image with another number is grey.
    """

    def __init__(self, grid: Grid, channels: int) -> None:
        self.grid = grid
        self._total = np.zeros((channels, *grid.shape), np.float32)
        self._seen = np.zeros(grid.shape, np.float32)

    def add(self, image: Image, transform: Transform, share: float) -> None:
        """Add an image, or take away what was added with the opposite share."""
        values, seen = self._placed(image, transform)
        self._total += np.float32(share) * values
        self._seen += np.float32(share) * seen

    @property
    def image(self) -> Image:
        """The mean of what was added."""
        return _divided(self._total, self._seen, self.grid)

    def without(self, image: Image, transform: Transform, share: float) -> Image:
        """The mean of the others: of what was added but for this image."""
        values, seen = self._placed(image, transform)
        total = self._total - np.float32(share) * values
        return _divided(total, self._seen - np.float32(share) * seen, self.grid)

    def _placed(self, image: Image, transform: Transform) -> tuple[np.ndarray, np.ndarray]:
        """The scaled image on the grid, and 1 where it shows something."""
        channels = len(self._total)
        values = image.array if len(image.array) == channels else image.grey()[None]
        low, high = np.percentile(values, (1, 99))
        scaled = ((values - low) / max(high - low, 1e-12)).astype(np.float32)
        warped = resample(Image(scaled, image.grid), transform, self.grid, fill=0)
        ones = Image(np.ones((1, *image.grid.shape), np.uint8), image.grid)
        return warped.array, resample(ones, transform, self.grid, nearest=True).array[0]


def _divided(total: np.ndarray, seen: np.ndarray, grid: Grid) -> Image:
    known = seen > BARELY
    return Image(np.where(known, total, 0) / np.where(known, seen, 1), grid)
