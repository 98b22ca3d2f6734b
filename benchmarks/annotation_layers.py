"""Layers that viewers and cameras put over pictures of the retina, drawn at random.

Grids, rulers, scan rasters, captions, watermarks, dirt, reflexes; KINDS names them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np

from retreg.image import Image

Random = np.random.Generator
Shape = tuple[int, int]
WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (170, 170, 170)
COLOURS = (WHITE, WHITE, BLACK, GREY, (0, 255, 0), (255, 255, 0), (0, 255, 255), (60, 120, 255),
           (255, 0, 0), (255, 0, 255))


@dataclass(eq=False)
class Layer:
    """What is drawn over a picture: colours (h, w, 3) and opacity (h, w), 0 to 1, float32."""

    colours: np.ndarray
    opacity: np.ndarray

    @classmethod
    def clear(cls, shape: tuple[int, int]) -> Layer:
        return cls(np.zeros((*shape, 3), np.float32), np.zeros(shape, np.float32))

    def put(self, drawn: np.ndarray, colour: tuple[int, ...], opacity: float = 1.0) -> None:
        """Paint where drawn (h, w) is above 0, which goes to 1."""
        share = drawn[..., None]
        self.colours = self.colours * (1 - share) + share * np.array(colour, np.float32)
        self.opacity = np.maximum(self.opacity * (1 - drawn), drawn * opacity)

    def over(self, picture: Image) -> Image:
        """The picture with the layer on it; a grey picture takes the mean of the colours."""
        array = picture.array[:, 0].astype(np.float32)
        colours = np.moveaxis(self.colours, -1, 0)
        colours = colours if len(array) == 3 else colours.mean(axis=0, keepdims=True)
        mixed = array * (1 - self.opacity) + colours * self.opacity
        return replace(picture, array=np.rint(mixed).clip(0, 255).astype(np.uint8)[:, None])


class Pen:
    """Draws anti-aliased or hard strokes on a mask (h, w) float32."""

    def __init__(self, random: Random, shape: Shape) -> None:
        self.mask = np.zeros(shape, np.uint8)
        self.width = int(random.integers(1, 4)) if min(shape) > 600 else int(random.integers(1, 3))
        self.kind = cv2.LINE_AA if random.random() < 0.5 else cv2.LINE_8

    def line(self, start: np.ndarray, end: np.ndarray) -> None:
        ends = (tuple(round(v) for v in point) for point in (start, end))
        cv2.line(self.mask, *ends, 255, self.width, self.kind)

    def circle(self, centre: np.ndarray, radius: float) -> None:
        middle = tuple(round(v) for v in centre)
        cv2.circle(self.mask, middle, int(radius), 255, self.width, self.kind)

    def text(self, words: str, place: np.ndarray, size: float) -> None:
        origin = tuple(round(v) for v in place)
        cv2.putText(self.mask, words, origin, cv2.FONT_HERSHEY_SIMPLEX, size, 255, self.width,
                    self.kind)

    @property
    def drawn(self) -> np.ndarray:
        return self.mask.astype(np.float32) / 255


def _colour(random: Random) -> tuple[int, ...]:
    return COLOURS[random.integers(len(COLOURS))]


def _middle(random: Random, shape: Shape) -> np.ndarray:
    return np.array(shape[::-1]) * random.uniform(0.42, 0.58, 2)


def _heading(degrees: float) -> np.ndarray:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def _etdrs(random: Random, shape: Shape, opacity: float = 1.0) -> Layer:
    layer, pen = Layer.clear(shape), Pen(random, shape)
    middle, unit = _middle(random, shape), min(shape) * random.uniform(0.7, 1.1) / 2
    for radius in (0.15, 0.45, 0.9):
        pen.circle(middle, radius * unit)
    for angle in (45, 135, 225, 315):
        pen.line(middle + 0.15 * unit * _heading(angle), middle + 0.9 * unit * _heading(angle))
    layer.put(pen.drawn, _colour(random), opacity)
    return layer


def _faint_etdrs(random: Random, shape: Shape) -> Layer:
    return _etdrs(random, shape, random.uniform(0.3, 0.6))


def _grid(random: Random, shape: Shape) -> Layer:
    layer, pen = Layer.clear(shape), Pen(random, shape)
    cells, (height, width) = int(random.integers(4, 13)), shape
    low, high = random.uniform(0, 0.2), random.uniform(0.8, 1)
    for share in np.linspace(low, high, cells + 1):
        pen.line(np.array([share * width, low * height]), np.array([share * width, high * height]))
        pen.line(np.array([low * width, share * height]), np.array([high * width, share * height]))
    layer.put(pen.drawn, _colour(random))
    return layer


def _raster(random: Random, shape: Shape) -> Layer:
    layer, pen = Layer.clear(shape), Pen(random, shape)
    middle, unit = _middle(random, shape), min(shape) / 2
    along = _heading(random.choice([0, 90, random.uniform(0, 180)]))
    across, reach = along[::-1] * (1, -1), unit * random.uniform(0.5, 0.8)
    for offset in np.linspace(-reach, reach, int(random.integers(7, 26))):
        pen.line(middle + offset * across - reach * along, middle + offset * across + reach * along)
    layer.put(pen.drawn, _colour(random))
    return layer


def _star(random: Random, shape: Shape) -> Layer:
    layer, pen = Layer.clear(shape), Pen(random, shape)
    middle, reach = _middle(random, shape), min(shape) * random.uniform(0.3, 0.45)
    for angle in np.arange(0, 180, 180 / random.integers(4, 13)):
        pen.line(middle - reach * _heading(angle), middle + reach * _heading(angle))
    layer.put(pen.drawn, _colour(random))
    return layer


def _measures(random: Random, shape: Shape) -> Layer:
    """A crosshair, arrows, a ruler with ticks and a scale bar."""
    layer, pen = Layer.clear(shape), Pen(random, shape)
    size = np.array(shape[::-1], float)
    middle = _middle(random, shape)
    for angle in (0, 90):
        reach = 0.45 * size * _heading(angle)
        pen.line(middle - reach, middle + reach)
        for tick in np.linspace(-1, 1, 21):
            place = middle + tick * reach
            pen.line(place - 6 * _heading(angle + 90), place + 6 * _heading(angle + 90))
    for _ in range(4):
        start, angle = size * random.uniform(0.2, 0.8, 2), random.uniform(0, 360)
        end = start + 0.12 * min(shape) * _heading(angle)
        pen.line(start, end)
        for side in (150, 210):
            pen.line(end, end + 0.03 * min(shape) * _heading(angle + side))
    layer.put(pen.drawn, _colour(random))
    left, top = (0.1 * size).astype(int)
    bar = np.zeros(shape, np.float32)
    bar[-top : -top + 5, left : left + shape[1] // 6] = 1
    layer.put(bar, WHITE)
    return layer


def _caption(random: Random, shape: Shape) -> Layer:
    layer, pen = Layer.clear(shape), Pen(random, shape)
    size = min(shape) / 900
    for _ in range(int(random.integers(2, 7))):
        words = "".join(chr(random.integers(48, 91)) for _ in range(28))
        top = random.uniform(0.05, 0.95)
        place = np.array([0.08 * shape[1], top * shape[0]])
        pen.text(words, place, size * random.uniform(0.8, 1.6))
    layer.put(pen.drawn, _colour(random))
    return layer


def _watermark(random: Random, shape: Shape) -> Layer:
    layer, pen = Layer.clear(shape), Pen(random, shape)
    size, step = min(shape) / random.uniform(350, 700), random.uniform(0.1, 0.25)
    pen.width = max(1, int(2.5 * size))
    words = ("SAMPLE COPY", "CONFIDENTIAL", "Eye Clinic", "DEMO 0815")[random.integers(4)]
    for row in np.arange(step, 1, step):
        for column in np.arange(-0.1, 1, 0.45):
            place = np.array([(column + row / 3) * shape[1], row * shape[0]])
            pen.text(words, place, size)
    turn = cv2.getRotationMatrix2D((shape[1] / 2, shape[0] / 2), random.uniform(-35, 35), 1.0)
    drawn = cv2.warpAffine(pen.drawn, turn, shape[::-1])
    layer.put(drawn, (WHITE, GREY, BLACK)[random.integers(3)], random.uniform(0.2, 0.5))
    return layer


def _logo(random: Random, shape: Shape) -> Layer:
    layer = Layer.clear(shape)
    for _ in range(int(random.integers(3, 9))):
        mask, corners = np.zeros(shape, np.uint8), int(random.integers(3, 7))
        centre = np.array(shape[::-1]) * random.uniform(0.1, 0.9, 2)
        angles = np.sort(random.uniform(0, 360, corners))
        radii = min(shape) * random.uniform(0.03, 0.09, corners)
        points = [centre + r * _heading(a) for r, a in zip(radii, angles, strict=True)]
        cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 255, cv2.LINE_AA)
        layer.put(mask.astype(np.float32) / 255, _colour(random))
    return layer


def _dirt(random: Random, shape: Shape) -> Layer:
    """Dust out of focus and hairs in it: dark, with soft rims."""
    layer, drawn = Layer.clear(shape), np.zeros(shape, np.float32)
    for _ in range(int(random.integers(20, 60))):
        spot = np.zeros(shape, np.float32)
        centre = tuple(int(v) for v in np.array(shape[::-1]) * random.random(2))
        cv2.circle(spot, centre, int(random.uniform(2, 0.02 * min(shape) + 3)), 1.0, -1)
        drawn = np.maximum(drawn, cv2.GaussianBlur(spot, (0, 0), random.uniform(1, 4)))
    for _ in range(int(random.integers(4, 12))):
        steps = np.cumsum(_heading(0) + random.normal(0, 0.4, (40, 2)), axis=0)
        turn = random.uniform(0, 2 * np.pi)
        steps = steps @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        hair = np.zeros(shape, np.float32)
        points = np.array(shape[::-1]) * random.random(2) + steps * min(shape) / 150
        cv2.polylines(hair, [np.rint(points).astype(np.int32)], False, 1.0, 2, cv2.LINE_AA)
        drawn = np.maximum(drawn, cv2.GaussianBlur(hair, (0, 0), random.uniform(0.7, 2)))
    layer.put(drawn, (20, 10, 5), 1.0)
    layer.opacity *= random.uniform(0.3, 0.8)
    return layer


def _reflex(random: Random, shape: Shape) -> Layer:
    """Bright soft arcs and ghosts of the camera's own light."""
    layer, drawn = Layer.clear(shape), np.zeros(shape, np.float32)
    for _ in range(int(random.integers(3, 8))):
        arc = np.zeros(shape, np.float32)
        centre = tuple(int(v) for v in np.array(shape[::-1]) * random.uniform(0.2, 0.8, 2))
        axes = tuple(int(v) for v in min(shape) * random.uniform(0.05, 0.4, 2))
        start = random.uniform(0, 360)
        cv2.ellipse(arc, centre, axes, random.uniform(0, 180), start, start + 150, 1.0,
                    int(random.integers(2, 9)), cv2.LINE_AA)
        drawn = np.maximum(drawn, cv2.GaussianBlur(arc, (0, 0), random.uniform(1.5, 6)))
    layer.put(drawn, (255, 250, 235), 1.0)
    layer.opacity *= random.uniform(0.3, 0.9)
    return layer


def _frame(random: Random, shape: Shape) -> Layer:
    """Boxes around regions, a border along the edge and a notch."""
    layer, pen = Layer.clear(shape), Pen(random, shape)
    colour = _colour(random)
    size = np.array(shape[::-1])
    for _ in range(int(random.integers(2, 7))):
        low, high = size * random.uniform(0.02, 0.45, 2), size * random.uniform(0.55, 0.98, 2)
        corners = [low, np.array([high[0], low[1]]), high, np.array([low[0], high[1]])]
        for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
            pen.line(start, end)
    layer.put(pen.drawn, colour)
    border, edge = np.ones(shape, np.float32), int(random.integers(1, 20))
    border[edge:-edge, edge:-edge] = 0
    layer.put(border, colour)
    return layer


def _contours(random: Random, shape: Shape) -> Layer:
    """Outlines drawn by hand, whole and dashed."""
    layer, pen = Layer.clear(shape), Pen(random, shape)
    for number in range(int(random.integers(3, 8))):
        centre = np.array(shape[::-1]) * random.uniform(0.2, 0.8, 2)
        phases = random.uniform(0, 2 * np.pi, 4)
        angles = np.linspace(0, 2 * np.pi, 80)
        waves = sum(0.1 * np.cos((k + 1) * angles + phase) for k, phase in enumerate(phases))
        radii = min(shape) * random.uniform(0.05, 0.25) * (1 + waves)
        points = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        for step, (start, end) in enumerate(pairwise(points)):
            if number % 2 or step % 3:
                pen.line(start, end)
    layer.put(pen.drawn, _colour(random))
    return layer


def _colour_map(random: Random, shape: Shape) -> Layer:
    """A half-opaque map of the retina's thickness: smooth, of rings or of sectors."""
    layer, (rows, columns) = Layer.clear(shape), np.indices(shape)
    middle = np.array(shape) * (0.5 + random.uniform(-0.08, 0.08, 2))
    reach = min(shape) * random.uniform(0.18, 0.42)
    down, right = (rows - middle[0]) / reach, (columns - middle[1]) / reach
    distance = np.hypot(down, right)
    cells = random.normal(size=(int(random.integers(4, 14)),) * 2).astype(np.float32)
    smooth = cv2.resize(cells, shape[::-1], interpolation=cv2.INTER_CUBIC)
    quarter = np.digitize(np.arctan2(down, right), [-np.pi / 2, 0, np.pi / 2])
    sectors = random.permutation(12)[4 * np.digitize(distance, [1 / 3, 2 / 3]) + quarter]
    values = (smooth, smooth, distance + 0.15 * smooth, sectors)[int(random.integers(4))]
    levels = np.rint(255 * (values - values.min()) / np.ptp(values)).astype(np.uint8)
    palette = int(random.choice([cv2.COLORMAP_JET, cv2.COLORMAP_VIRIDIS, cv2.COLORMAP_TURBO]))
    square = np.maximum(abs(down), abs(right))
    everywhere = np.zeros(shape)
    extent = (distance, distance, square, everywhere)[int(random.integers(4))]
    layer.colours = cv2.applyColorMap(levels, palette)[..., ::-1].astype(np.float32)
    layer.opacity = np.float32(extent < 1) * np.float32(random.uniform(0.25, 0.75))
    return layer


KINDS: dict[str, Callable[[Random, Shape], Layer]] = {
    "etdrs": _etdrs,
    "faint-etdrs": _faint_etdrs,
    "grid": _grid,
    "raster": _raster,
    "star": _star,
    "measures": _measures,
    "caption": _caption,
    "watermark": _watermark,
    "logo": _logo,
    "dirt": _dirt,
    "reflex": _reflex,
    "frame": _frame,
    "contours": _contours,
    "colour-map": _colour_map,
}
