"""Points and descriptors of a network on vessel maps, and their matches; torch is not needed.

The network tells points that are turned by up to about 50 degrees. For any rotation the moving
picture is shown to it turned by quarter turns, until one of them matches well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial

import cv2
import numpy as np

from retreg.errors import FileError
from retreg_server.registration.fundus.features import SIFT_ON_VESSELS, Method
from retreg_server.registration.fundus.point_matching import (
    MATCHERS,
    TurnedFeatures,
    matched_looks,
)
from retreg_server.registration.networks.point_extraction import (
    descriptors_at,
    point_map,
    strongest_points,
)
from retreg_server.registration.networks.superpoint_arrays import MULTIPLE, SuperPointArrays
from retreg_server.registration.networks.weights import load_arrays, load_metadata
from retreg_server.registration.preprocessing.vessel_corners import vessel_corners

logger = logging.getLogger(__name__)
NAME = "superpoint-fundus"
LOW, HIGH, EVERY = 1.0, 99.5, 5  # percentiles that become 0 and 1, of every fifth pixel
MOST_POINTS, APART = 600, 10.0
FIELD = 768  # pixels of the vessel map of a whole field
SMOOTH, WEAKEST_CORNER, LEAST_LIKELY = 1.2, 0.02, 0.01
STRONG_COUNT, STRONG_RATIO = 20, 0.15  # two different eyes reach 14 inliers, 0.12 of the matches
POLARITIES = 3


@cache
def network() -> SuperPointArrays:
    """The network, read when it is first needed. Raises FileError when it cannot be used."""
    return SuperPointArrays(load_arrays(NAME))


def described_corners(vessels: np.ndarray, valid: np.ndarray) -> TurnedFeatures:
    """The corners of a vessel map (h, w) from 0 to 1, where it is valid (h, w) bool."""
    soft = cv2.GaussianBlur(vessels, (0, 0), SMOOTH)
    square = _Square.of(vessels * valid)
    return _described(square, vessel_corners(soft, valid, MOST_POINTS, WEAKEST_CORNER, APART))


def detected_points(vessels: np.ndarray, valid: np.ndarray) -> TurnedFeatures:
    """The points of a vessel map that the network names itself; see described_corners."""
    square, shown = _Square.of(vessels * valid), _Square.of(valid)
    likely = point_map(network().cells(square.values))
    points, _ = strongest_points(likely, shown.raw > 0.5, MOST_POINTS, LEAST_LIKELY)
    return _described(square, (points + 0.5) * square.factors - 0.5)


def _described(square: _Square, points: np.ndarray) -> TurnedFeatures:
    places = (points + 0.5) / square.factors - 0.5
    centred = points - (square.shape[::-1] - 1) / 2
    strength = 1 - np.arange(len(points)) / MOST_POINTS
    told = np.column_stack([centred * 2 / square.shape.max(), strength]).astype(np.float32)

    @cache
    def described(turns: int) -> np.ndarray:
        maps = network().descriptors(np.ascontiguousarray(np.rot90(square.values, turns)))
        return descriptors_at(maps, _turned(places, turns, len(square.values)))

    return TurnedFeatures(points, described(0), told, network().sharpness, described)


POINTS: dict[str, Callable[[np.ndarray, np.ndarray], TurnedFeatures]] = {
    "corners": described_corners,
    "network": detected_points,
}


def learned_method(
    matcher: str = "nearest", looks: int = 4, points: str = "corners"
) -> Method:
    """How global_alignment uses the network. matcher: of MATCHERS; looks: 1 or 4; points: of
    POINTS."""
    match = partial(matched_looks, looks=looks, shares=MATCHERS[matcher])
    return Method(POINTS[points], match, STRONG_COUNT, STRONG_RATIO, POLARITIES)


@cache
def best_methods() -> tuple[Method, ...]:
    """Learned features where their weights can be used, then SIFT."""
    try:
        network()
    except FileError as error:
        logger.warning("Registering without learned features: %s", error)
        return (SIFT_ON_VESSELS,)
    return learned_method(), SIFT_ON_VESSELS


@dataclass(frozen=True, eq=False)
class _Square:
    """A layer in the upper left corner of a square (n, n) float32 that is as long as its longer
    side, or longer for a part of a field, which has fewer pixels than FIELD. factors: pixels of the
    layer per pixel of the square, x and y. shape: (h, w) of the layer."""

    raw: np.ndarray
    factors: np.ndarray
    shape: np.ndarray

    @classmethod
    def of(cls, layer: np.ndarray) -> _Square:
        pixels = load_metadata(NAME).pixels
        height, width = layer.shape
        scale = pixels / max(height, width, FIELD)
        size = round(scale * width), round(scale * height)
        side = -(-max(size) // MULTIPLE) * MULTIPLE
        square = np.zeros((side, side), np.float32)
        small = cv2.resize(layer.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        square[: size[1], : size[0]] = small
        return cls(square, np.array([width, height]) / size, np.array(layer.shape))

    @cached_property
    def values(self) -> np.ndarray:
        """The range of intensities that the network was trained on; see networks/input_range.py."""
        low, high = np.percentile(self.raw.ravel()[::EVERY], (LOW, HIGH))
        scaled: np.ndarray = np.clip((self.raw - low) / max(high - low, 1e-6), 0, 1)
        return scaled.astype(np.float32)


def _turned(points: np.ndarray, turns: int, pixels: int) -> np.ndarray:
    """Where points (n, 2) of a square lie after numpy.rot90 turned it."""
    for _ in range(turns):
        points = np.stack([points[:, 1], pixels - 1 - points[:, 0]], axis=1)
    return points
