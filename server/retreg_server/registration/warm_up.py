"""The first pass of a network, made before anybody waits for it.

It reads and checks the weights, and on a CUDA device it compiles and chooses kernels, for tensors
of the size that registrations use.
"""

from __future__ import annotations

import numpy as np

from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.registration.base import Model
from retreg_server.registration.keymorph import KeyMorph

SIZE_MM = 190.0
VOXELS, PIXELS = 32, 128


def warm_up(model: Model) -> None:
    """Show a keypoint network something, and read the weights of a network for fields.

    Nothing happens for a model without a network. Raises FileError when weights cannot be used.
    """
    if isinstance(model, KeyMorph):
        is_for_pictures = "picture" in model.info.kinds
        image = ball(PIXELS, 1) if is_for_pictures else ball(VOXELS, VOXELS)
        model.look(image, "first", False, "auto")
    else:
        getattr(model, "net", None)  # read when it is first asked for


def ball(side: int, planes: int) -> Image:
    """A patterned ball in (planes, side, side) voxels, or its middle plane: as large as a head."""
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in (planes, side, side)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    values = np.where(x**2 + y**2 + z**2 < 0.64, 120 + 60 * np.sin(9 * x) * np.cos(7 * y), 0)
    spacing_mm = SIZE_MM / side
    matrix = np.diag([spacing_mm, spacing_mm, spacing_mm, 1])
    return Image(values.astype(np.uint8)[None], Grid((side, side, planes), matrix))
