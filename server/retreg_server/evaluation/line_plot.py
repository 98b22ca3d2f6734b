"""Line plots as PNG, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

SIZE = (760, 460)
LEFT, TOP, RIGHT, BOTTOM = 70, 40, 230, 60
COLOURS = (
    "#1b6ca8", "#d1495b", "#3a7d44", "#edae49", "#6a4c93", "#00798c", "#8d5524", "#555555",
    "#b23a8e", "#7cb518", "#f26419", "#33658a",
)  # fmt: skip
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def line_plot(
    path: Path,
    title: str,
    places: Sequence[str],
    series: Mapping[str, Mapping[str, float]],
    label: str,
) -> None:
    """Draw one line per series over the named places, from zero upwards; gaps where there is none.

    label: of the vertical axis, with its unit.
    """
    picture = Picture.new("RGB", SIZE, "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    step = _tick_step(highest := _highest(series))
    top = step * max(1, math.ceil(highest / step))
    width, height = SIZE[0] - LEFT - RIGHT, SIZE[1] - TOP - BOTTOM

    def x_of(number: int) -> float:
        return LEFT + width * (number + 0.5) / max(len(places), 1)

    def y_of(value: float) -> float:
        return TOP + height * (1 - value / top)

    draw.text((LEFT, 10), f"{title} ({label})", fill="black", font=ImageFont.load_default(15))
    for number in range(round(top / step) + 1):
        y = y_of(number * step)
        draw.line([(LEFT, y), (LEFT + width, y)], fill="#dddddd")
        draw.text((LEFT - 8, y), f"{number * step:g}", fill="black", font=font, anchor="rm")
    for number, place in enumerate(places):
        draw.text((x_of(number), TOP + height + 8), place, fill="black", font=font, anchor="ma")
    for order, (name, line) in enumerate(series.items()):
        points = [
            (x_of(n), y_of(line[place]))
            for n, place in enumerate(places)
            if math.isfinite(line.get(place, math.nan))
        ]
        colour = COLOURS[order % len(COLOURS)]
        _draw_line(draw, points, colour)
        _draw_name(draw, name, colour, (LEFT + width + 14, TOP + 18 * order))
    picture.save(path)


def _highest(series: Mapping[str, Mapping[str, float]]) -> float:
    values = [v for line in series.values() for v in line.values() if math.isfinite(v)]
    return max(values, default=1.0)


def _draw_name(
    draw: ImageDraw.ImageDraw, name: str, colour: str, place: tuple[float, float]
) -> None:
    """An entry of the legend at place."""
    left, y = place
    draw.line([(left, y), (left + 14, y)], fill=colour, width=3)
    draw.text((left + 20, y), name[:28], fill="black", font=ImageFont.load_default(13), anchor="lm")


def _draw_line(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], colour: str) -> None:
    if len(points) > 1:
        draw.line(points, fill=colour, width=2)
    for x, y in points:
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)


def _tick_step(largest: float) -> float:
    """A round number, so that four to ten of them reach the largest value."""
    if not largest > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    return next(power * part for part in (0.1, 0.2, 0.5, 1.0) if largest <= 10 * power * part)
