"""What there is to see of a series: an animation, a map of the changes, a page with a slider."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

from retreg.files.doors import replacing
from retreg_server.batch.series import Frame, change_of
from retreg_server.batch.table import TABLE

ANIMATION, CHANGE, PAGE = "animation.gif", "change.png", "index.html"
SERIES_FILES = (ANIMATION, CHANGE, PAGE)
_FRAME_MS = 700
_MOST_CHANGE = 1.5  # standard deviations that are shown white
_STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff; }
figure { margin: 0 0 1rem; max-width: 60rem; } img { width: 100%; height: auto; background: #000; }
input { width: 100%; max-width: 60rem; } small { color: #555; }
"""
_SCRIPT = """
const slider = document.querySelector("input"), picture = document.querySelector("#frame");
const show = () => {
  const [name, address] = frames[slider.value];
  picture.src = address; picture.alt = name;
  document.querySelector("#name").textContent = name;
};
slider.addEventListener("input", show); show();
"""


def write_series(out: Path, frames: Sequence[Frame], left_out: Mapping[str, str]) -> None:
    """Write SERIES_FILES; the page needs no other file and no network. Raises FileError."""
    captioned = [_captioned(frame) for frame in frames]
    with replacing(out / ANIMATION, ".gif") as temporary:
        captioned[0].save(
            temporary, save_all=True, append_images=captioned[1:], duration=_FRAME_MS, loop=0
        )
    change = np.nan_to_num(change_of(frames) / _MOST_CHANGE).clip(0, 1)
    picture = Picture.fromarray((255 * change).astype(np.uint8))
    with replacing(out / CHANGE, ".png") as temporary:
        picture.save(temporary)
    with replacing(out / PAGE, ".html") as temporary:
        temporary.write_text(_page(frames, left_out, picture), encoding="utf-8")


def _captioned(frame: Frame) -> Picture.Image:
    picture = Picture.fromarray(frame.rgb)
    canvas = ImageDraw.Draw(picture)
    canvas.text((6, 6), frame.name, fill=(255, 255, 255), stroke_width=2, stroke_fill=(0, 0, 0))
    return picture


def _page(
    frames: Sequence[Frame], left_out: Mapping[str, str], change: Picture.Image
) -> str:
    shown = [
        [f"{frame.name} ({frame.verdict})", _address(Picture.fromarray(frame.rgb))]
        for frame in frames
    ]
    missing = "".join(
        f"<li>{escape(name)} was left out: {escape(reason)}</li>"
        for name, reason in left_out.items()
    )
    data = json.dumps(shown).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Series</title>
<style>{_STYLE}</style>
<h1>Series</h1>
<p><label>Image: <output id="name"></output>
<input type="range" min="0" max="{len(frames) - 1}" value="0"></label></p>
<figure><img id="frame" alt=""></figure>
<ul>{missing}</ul>
<h2>Change</h2>
<figure><img src="{_address(change)}" alt="Map of the changes"><figcaption>How much each place
changes over the series, beside differences of light and exposure; bright is much. What not all
images show is black.</figcaption></figure>
<p>The numbers of all are in <a href="{TABLE}">{TABLE}</a>.</p>
<p><small>Research software, not a medical device.</small></p>
<script>const frames = {data};{_SCRIPT}</script>
</html>
"""


def _address(picture: Picture.Image) -> str:
    """The picture itself as an address."""
    file = BytesIO()
    picture.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
