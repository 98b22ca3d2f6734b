"""What a keypoint network saw in an image is remembered, since the network is what takes the time.

The second registration to the same fixed image then looks at the moving image only.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from weakref import WeakKeyDictionary

import numpy as np

from retreg.image import Image
from retreg_server.registration.keymorph.detectors import Look, Looker

MOST_LOOKS = 32  # two for each image
MOST_BYTES = 1 << 28
Key = tuple[str, bool, str]


class RememberingLooker:
    """A looker that looks at each image once: see Looker, whose errors it passes on.

    look: of one network; each network has a memory of its own, so that images are told apart by
    their content (SHA-256 of voxels and geometry) alone. most_looks, most_bytes: the looks that
    were not asked for the longest are forgotten beyond that. May be used by several threads.
    """

    def __init__(
        self, look: Looker, most_looks: int = MOST_LOOKS, most_bytes: int = MOST_BYTES
    ) -> None:
        self._look = look
        self._most_looks = most_looks
        self._most_bytes = most_bytes
        self._looks: OrderedDict[Key, Look] = OrderedDict()
        self._contents: WeakKeyDictionary[Image, str] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def __call__(self, image: Image, role: str, again: bool, device: str) -> Look:
        key = self._content(image), again, device
        with self._lock:
            known = self._looks.get(key)
            if known is not None:
                self._looks.move_to_end(key)
                return known
        look = self._look(image, role, again, device)
        with self._lock:
            self._looks[key] = look
            self._forget()
        return look

    @property
    def nbytes(self) -> int:
        """Of all images that are remembered, as the network sees them."""
        return sum(look.image.nbytes for look in self._looks.values())

    def _forget(self) -> None:
        while self._looks and (
            len(self._looks) > self._most_looks or self.nbytes > self._most_bytes
        ):
            self._looks.popitem(last=False)

    def _content(self, image: Image) -> str:
        """Taken once of each image: both looks of a registration need it."""
        with self._lock:
            known = self._contents.get(image)
        if known is None:
            known = content(image)
            with self._lock:
                self._contents[image] = known
        return known


def content(image: Image) -> str:
    """The SHA-256 of the voxels, their type and their geometry."""
    digest = hashlib.sha256(f"{image.array.dtype.str} {image.array.shape}".encode())
    for part in (image.grid.world_from_index, image.array):
        digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
