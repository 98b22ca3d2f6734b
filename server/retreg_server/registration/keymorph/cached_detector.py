"""What a keypoint network saw in an image is remembered, since the network is what takes the time.

The second registration to the same fixed image then shows it the moving image only.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from retreg.image import Image

if TYPE_CHECKING:
    from retreg_server.registration.keymorph.detectors import KeypointDetections, KeypointDetector

MOST_DETECTIONS = 32  # two for each image
MOST_BYTES = 1 << 28
Key = tuple[str, bool, str]


class CachedKeypointDetector:
    """A detector that is shown each image once: see KeypointDetector, whose errors it passes on.

    detect: of one network; each network has a cache of its own, so that images are told apart by
    their content (SHA-256 of voxels and geometry) alone. most_detections, most_bytes: the
    detections that were not asked for the longest are forgotten beyond that. May be used by several
    threads.
    """

    def __init__(
        self,
        detect: KeypointDetector,
        most_detections: int = MOST_DETECTIONS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._detector = detect
        self._most_detections = most_detections
        self._most_bytes = most_bytes
        self._detections: OrderedDict[Key, KeypointDetections] = OrderedDict()
        self._contents: WeakKeyDictionary[Image, str] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def __call__(self, image: Image, role: str, second: bool, device: str) -> KeypointDetections:
        key = self._content(image), second, device
        with self._lock:
            known = self._detections.get(key)
            if known is not None:
                self._detections.move_to_end(key)
                return known
        found = self._detector(image, role, second, device)
        with self._lock:
            self._detections[key] = found
            self._forget()
        return found

    @property
    def nbytes(self) -> int:
        """Of all images that are remembered, as the network sees them."""
        return sum(each.image.nbytes for each in self._detections.values())

    def _forget(self) -> None:
        while self._detections and (
            len(self._detections) > self._most_detections or self.nbytes > self._most_bytes
        ):
            self._detections.popitem(last=False)

    def _content(self, image: Image) -> str:
        """Taken once of each image: both detections of a registration need it."""
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
