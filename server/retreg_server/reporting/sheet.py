"""A sheet of panels with titles, a legend and a caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

Colour = tuple[int, int, int]

GAP, TITLE, LINE = 10, 30, 26  # pixels
PAPER: Colour = (26, 26, 30)  # not black: the edge of a picture can be seen
INK: Colour = (235, 235, 235)
NARROWEST = 720  # a sheet that is narrower could hold no caption


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture (rows, columns, 3) uint8 and the words above it."""

    title: str
    rgb: np.ndarray


@dataclass(frozen=True)
class Sign:
    """An entry of the legend: a ring or, without one, a square of that colour."""

    colour: Colour
    words: str
    is_ring: bool = True


def sheet(
    rows: Sequence[Sequence[Panel]], legend: Sequence[Sign], caption: Sequence[str]
) -> np.ndarray:
    """The rows of panels below each other, then the legend and the lines of the caption.

    Returns (rows, columns, 3) uint8. Each panel stands in a cell as large as the largest of its
    column and row; lines of the caption are broken where the sheet ends.
    """
    columns = max(len(row) for row in rows)
    widths = [max(row[c].rgb.shape[1] for row in rows if c < len(row)) for c in range(columns)]
    heights = [max(panel.rgb.shape[0] for panel in row) for row in rows]
    width = max(sum(widths) + GAP * (columns + 1), NARROWEST)
    lines = [part for line in caption for part in _broken(line, width - 2 * GAP)]
    top = GAP + sum(heights) + TITLE * len(rows)
    signs = _placed(legend, width)
    below = LINE * ((signs[-1][0][1] + 1 if signs else 0) + len(lines))
    picture = Picture.new("RGB", (width, top + below + 2 * GAP), PAPER)
    draw = ImageDraw.Draw(picture)
    y = 0
    for row, height in zip(rows, heights, strict=True):
        x = GAP
        for panel, column in zip(row, widths, strict=False):
            draw.text((x, y + TITLE - 6), panel.title, fill=INK, font=_font(18), anchor="ls")
            picture.paste(Picture.fromarray(panel.rgb), (x, y + TITLE))
            x += column + GAP
        y += TITLE + height
    _write(draw, y + GAP, signs, lines)
    return np.asarray(picture)


def _write(
    draw: ImageDraw.ImageDraw,
    top: int,
    signs: Sequence[tuple[tuple[int, int], Sign]],
    lines: Sequence[str],
) -> None:
    """The legend from top on, and the caption below it."""
    for (x, line), sign in signs:
        y = top + LINE * line + LINE // 2
        if sign.is_ring:
            ring(draw, x + 8, y, 6, sign.colour)
        else:
            draw.rectangle((x + 1, y - 7, x + 15, y + 7), fill=sign.colour, outline=INK)
        draw.text((x + 24, y), sign.words, fill=INK, font=_font(16), anchor="lm")
    top += LINE * (signs[-1][0][1] + 1 if signs else 0)
    for n, text in enumerate(lines):
        draw.text((GAP, top + LINE * n + LINE // 2), text, fill=INK, font=_font(16), anchor="lm")


def ring(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: Colour) -> None:
    """A circle on a dark rim, which can be seen on bright and on dark ground."""
    for grown, paint, width in ((1, (0, 0, 0), 4), (0, colour, 2)):
        reach = radius + grown
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=paint, width=width)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _placed(legend: Sequence[Sign], width: int) -> list[tuple[tuple[int, int], Sign]]:
    """Each sign with its x and the number of its line."""
    x, line, placed = GAP, 0, []
    for sign in legend:
        length = 24 + int(_font(16).getlength(sign.words)) + 28
        if x > GAP and x + length > width:
            x, line = GAP, line + 1
        placed.append(((x, line), sign))
        x += length
    return placed


def _broken(text: str, width: int) -> list[str]:
    """The text in lines of at most width pixels, broken between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font(16).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
