"""Maps of a registration as pictures with a colour bar."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from retreg.geometry import Grid
from retreg.image import Image
from retreg.maps import KINDS
from retreg.resample import resample
from retreg.transforms import Affine
from retreg_server.reporting.views import object_in, shown, views

GAP, BAR, LABELS, TITLE = 12, 18, 86, 30  # pixels
TOP_PERCENTILE = 99.5  # what is larger has the colour of the end of the bar
LARGEST = np.float32(1e6)
NEUTRAL = {"jacobian": 1.0}  # shown white in a diverging bar
DARKEST = 0.45  # of a colour, where the image below it is black
FOLD = np.array((255, 0, 255), np.uint8)


def world_unit(grid: Grid) -> str:
    """The unit of the world of an image: a picture without a scale counts in its pixels."""
    return "px" if grid.is_unscaled_picture else "mm"


def map_picture(name: str, values: Image, unit: str, fixed: Image | None = None) -> np.ndarray:
    """The map of that name as (rows, columns, 3) uint8; a volume is cut through its middle.

    unit: of the numbers, empty for ratios. fixed: the image on which the map lies; the map is drawn
    over it, and only where it shows its object. Places that fold, with a determinant at or below 0
    or a Beltrami coefficient from 1 upwards, are magenta.
    """
    values = Image(np.minimum(values.array, LARGEST), values.grid)  # infinity cannot be resampled
    planes = views(values.grid)
    cuts = [resample(values, Affine.identity(), plane, fill=0).array[0, 0] for plane in planes]
    if fixed is None:
        masks = [np.ones(cut.shape, bool) for cut in cuts]
    else:
        masks = [object_in(fixed, plane) for plane in planes]
    inside = [cut[mask] for cut, mask in zip(cuts, masks, strict=True)]
    low, high = _range(name, np.concatenate(inside) if any(map(len, inside)) else values.array)
    panels = [_coloured(name, cut, low, high) for cut in cuts]
    if fixed is not None:
        around = [shown(fixed, Affine.identity(), plane) for plane in planes]
        panels = [_over(*each) for each in zip(panels, around, masks, strict=True)]
    return _beside_bar(name, panels, unit, (low, high))


def _over(coloured: np.ndarray, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The colours, with the brightness of the image, where the mask is; the image elsewhere."""
    grey = image.mean(axis=2, keepdims=True)
    drawn = np.where(mask[..., None], coloured * (DARKEST + (1 - DARKEST) * grey / 255), grey)
    folds = mask & (coloured == FOLD).all(axis=2)
    drawn[folds] = FOLD
    return drawn.astype(np.uint8)


def _beside_bar(
    name: str, panels: Sequence[np.ndarray], unit: str, ends: tuple[float, float]
) -> np.ndarray:
    """The panels in a row with the colour bar, under a title."""
    height, width = max(p.shape[0] for p in panels), sum(p.shape[1] + GAP for p in panels)
    canvas = np.full((height + TITLE + GAP, max(width + GAP + BAR + LABELS, 480), 3), 255, np.uint8)
    left = GAP
    for panel in panels:
        canvas[TITLE : TITLE + panel.shape[0], left : left + panel.shape[1]] = panel
        left += panel.shape[1] + GAP
    ramp = np.linspace(ends[1], ends[0], height)[:, None].repeat(BAR, axis=1)
    canvas[TITLE : TITLE + height, left : left + BAR] = _coloured(name, ramp, *ends)
    title = f"{KINDS[name].title}, {unit}" if unit else KINDS[name].title
    return _labelled(canvas, title, ends, (left + BAR + 6, TITLE, height))


def _range(name: str, values: np.ndarray) -> tuple[float, float]:
    """The numbers at both ends of the bar."""
    if name in NEUTRAL:
        reach = float(np.percentile(np.abs(values - NEUTRAL[name]), TOP_PERCENTILE))
        reach = min(max(reach, 0.01), NEUTRAL[name])
        return NEUTRAL[name] - reach, NEUTRAL[name] + reach
    return 0.0, max(float(np.percentile(values, TOP_PERCENTILE)), 0.01)


def _coloured(name: str, values: np.ndarray, low: float, high: float) -> np.ndarray:
    """(rows, columns, 3) uint8 of values (rows, columns)."""
    share = np.clip((values - low) / (high - low), 0, 1)
    if name in NEUTRAL:  # blue, white, red
        fade = 1 - np.abs(2 * share - 1)
        red, blue = np.where(share > 0.5, 1, fade), np.where(share < 0.5, 1, fade)
        rgb = np.rint(255 * np.dstack([red, fade, blue])).astype(np.uint8)
    else:
        levels = np.rint(255 * share).astype(np.uint8)
        rgb = cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[..., ::-1].copy()
    folds = {"jacobian": values <= 0, "beltrami": values >= 1}
    if name in folds:
        rgb[folds[name]] = FOLD
    return rgb


def _labelled(
    canvas: np.ndarray, title: str, ends: tuple[float, float], place: tuple[int, int, int]
) -> np.ndarray:
    """The canvas with a title, and five numbers beside the bar: place is left, top, height."""
    picture = Picture.fromarray(canvas)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    draw.text((GAP, 7), title, fill="black", font=ImageFont.load_default(15))
    left, top, height = place
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = ends[0] + share * (ends[1] - ends[0])
        y = top + (1 - share) * (height - 1)
        anchor = "lt" if share == 1 else "lb" if share == 0 else "lm"
        draw.text((left, y), f"{value:.3g}", fill="black", font=font, anchor=anchor)
    return np.asarray(picture)
