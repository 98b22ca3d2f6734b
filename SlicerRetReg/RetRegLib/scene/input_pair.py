"""The two volumes of a registration, as they were when it began."""

from __future__ import annotations

from typing import Any

import numpy as np

from retreg.errors import InputError
from retreg.image import Image
from retreg.masks import counting
from retreg.transforms import Affine
from RetRegLib.scene.guides import NO_GUIDES, Guides, initial_from, mask_from
from RetRegLib.scene.placement import disregarded
from RetRegLib.scene.volumes import grid_of_volume, image_from_volume


class Pair:
    """Nodes, and copies of their images. Raises InputError for what cannot be registered.

    replaced: a transform node that the result will replace, so it does not count as a parent of
    the moving volume; nor does an earlier result, unless the new one goes on_top. guides: masks of
    both, and a transform near which the result is looked for.
    """

    def __init__(
        self,
        fixed: Any,
        moving: Any,
        replaced: Any = None,
        on_top: bool = False,
        guides: Guides = NO_GUIDES,
    ) -> None:
        self.fixed, self.moving = fixed, moving
        self._replaced, self._on_top = replaced, on_top
        if fixed is not None and fixed is moving:
            raise InputError(f"{fixed.GetName()} is both fixed and moving; choose two volumes.")
        self.fixed_image = _image(fixed, "fixed", None, guides.fixed_mask)
        self.moving_image = _image(moving, "moving", self._below, guides.moving_mask)
        self._initial = guides.initial and initial_from(
            guides.initial, self.fixed_image.grid, moving
        )

    @property
    def images(self) -> tuple[Image, Image]:
        """The fixed and the moving one."""
        return self.fixed_image, self.moving_image

    @property
    def known(self) -> dict[str, Affine]:
        """What else is to be said of the pair to Client.register."""
        return {"initial": self._initial} if self._initial is not None else {}

    @property
    def _below(self) -> Any:
        return disregarded(self.moving, self._replaced, self._on_top)

    def check(self) -> None:
        """Raise InputError when the result would no longer fit the volumes."""
        for node, image, role in (
            (self.fixed, self.fixed_image, "fixed"),
            (self.moving, self.moving_image, "moving"),
        ):
            if node.GetScene() is None:
                raise InputError(f"The {role} volume was removed before its registration ended.")
            below = self._below if node is self.moving else None
            now, then = grid_of_volume(node, below), image.grid
            same_size = now.size == then.size
            if not same_size or not np.allclose(now.world_from_index, then.world_from_index):
                raise InputError(
                    f"The {role} volume was moved or changed before its registration ended; "
                    "register again."
                )


def _image(node: Any, role: str, below: Any, mask: Any) -> Image:
    if node is None:
        raise InputError(f"The {role} volume is missing; choose one.")
    image = image_from_volume(node, below)
    return image if mask is None else counting(image, mask_from(mask, below), role)
