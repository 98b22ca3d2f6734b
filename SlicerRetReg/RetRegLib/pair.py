"""The two volumes of a registration, as they were when it began."""

from __future__ import annotations

from typing import Any

import numpy as np

from retreg.errors import InputError
from retreg.image import Image
from RetRegLib.volumes import grid_of_volume, image_from_volume


class Pair:
    """Nodes, and copies of their images. Raises InputError for what cannot be registered."""

    def __init__(self, fixed: Any, moving: Any) -> None:
        self.fixed, self.moving = fixed, moving
        self.fixed_image = _image(fixed, "fixed")
        self.moving_image = _image(moving, "moving")

    def check(self) -> None:
        """Raise InputError when the result would no longer fit the volumes."""
        for node, image, role in (
            (self.fixed, self.fixed_image, "fixed"),
            (self.moving, self.moving_image, "moving"),
        ):
            if node.GetScene() is None:
                raise InputError(f"The {role} volume was removed before its registration ended.")
            now, then = grid_of_volume(node), image.grid
            same_size = now.size == then.size
            if not same_size or not np.allclose(now.world_from_index, then.world_from_index):
                raise InputError(
                    f"The {role} volume was moved or changed before its registration ended; "
                    "register again."
                )


def _image(node: Any, role: str) -> Image:
    if node is None:
        raise InputError(f"The {role} volume is missing; choose one.")
    return image_from_volume(node)
