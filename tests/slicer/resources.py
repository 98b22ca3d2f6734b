"""Makes what lies in SlicerRetReg/Resources beside the panel: demo pairs, thumbnails, icon.

    python tests/slicer/resources.py

The pairs come from the project's generators, so they may be given to anybody.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

from retreg import Image, write_image
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.head import make_head_pair
from retreg_server.phantoms.pair import PhantomPair

RESOURCES = Path(__file__).parents[2] / "SlicerRetReg" / "Resources"
THUMBNAIL = 192
INK = (24, 42, 66, 255)


def fundus_pair() -> PhantomPair:
    """A colour photograph and an angiogram of one right eye, 25 degrees apart."""
    return make_fundus_pair(4, size=512, rotation_deg=25.0)


def head_pair() -> PhantomPair:
    """A T1 and a T2 volume of one head, 40 degrees apart, in whole numbers up to 255."""
    pair = make_head_pair(4, spacing_mm=3.0, rotation_deg=40.0)
    return PhantomPair(_in_bytes(pair.fixed), _in_bytes(pair.moving), pair.truth, pair.landmarks)


def _in_bytes(image: Image) -> Image:
    brightest = np.percentile(image.array, 99.9)
    scaled = np.clip(image.array * (255 / brightest), 0, 255).round()
    return Image(scaled.astype(np.uint8), image.grid)


def write_pair(pair: PhantomPair, fixed: str, moving: str, thumbnail: str) -> None:
    """Write both images, and a picture that shows them side by side."""
    folder = RESOURCES / "SampleData"
    folder.mkdir(exist_ok=True)
    write_image(folder / fixed, pair.fixed)
    write_image(folder / moving, pair.moving)
    both = Picture.new("RGB", (2 * THUMBNAIL, THUMBNAIL))
    for place, image in ((0, pair.fixed), (THUMBNAIL, pair.moving)):
        both.paste(_middle_slice(image), (place, 0))
    both.save(RESOURCES / "Icons" / thumbnail, optimize=True)


def _middle_slice(image: Image) -> Picture.Image:
    """The middle slice as a square; volumes are shown with the front up."""
    slice_ = image.array[:, image.array.shape[1] // 2].transpose(1, 2, 0)
    colour = np.repeat(slice_, 3, axis=2) if slice_.shape[2] == 1 else slice_
    side = max(colour.shape[:2])
    square = np.zeros((side, side, 3), np.uint8)
    top, left = (side - colour.shape[0]) // 2, (side - colour.shape[1]) // 2
    square[top : top + colour.shape[0], left : left + colour.shape[1]] = colour
    return Picture.fromarray(square).resize((THUMBNAIL, THUMBNAIL), Picture.Resampling.LANCZOS)


def draw_icon(path: Path, size: int = 128, finer: int = 8) -> None:
    """Two images that overlap, and keypoints of one tied to those of the other."""
    unit = size * finer / 128
    picture = Picture.new("RGBA", (size * finer, size * finer))
    for left, top, colour in ((8, 30, (235, 128, 50, 255)), (48, 10, (44, 150, 190, 190))):
        layer = Picture.new("RGBA", picture.size)
        box = [round(each * unit) for each in (left, top, left + 72, top + 72)]
        ImageDraw.Draw(layer).ellipse(box, colour, INK, round(3 * unit))
        picture = Picture.alpha_composite(picture, layer)
    draw = ImageDraw.Draw(picture)
    for start, end in (((26, 58), (66, 38)), ((40, 86), (80, 66)), ((56, 64), (96, 44))):
        ends = [round(each * unit) for each in (*start, *end)]
        draw.line(ends, (255, 255, 255, 255), round(3 * unit))
        for x, y in (start, end):
            r = 5.5
            dot = [round(each * unit) for each in (x - r, y - r, x + r, y + r)]
            draw.ellipse(dot, (255, 255, 255, 255), INK, round(2.5 * unit))
    picture.resize((size, size), Picture.Resampling.LANCZOS).save(path, optimize=True)


def main() -> None:
    """Write all of them."""
    (RESOURCES / "Icons").mkdir(exist_ok=True)
    draw_icon(RESOURCES / "Icons" / "RetReg.png")
    names = ("fundus-colour.png", "fundus-angiogram.png", "RetRegFundusPair.png")
    write_pair(fundus_pair(), *names)
    write_pair(head_pair(), "head-t1.nrrd", "head-t2.nrrd", "RetRegHeadPair.png")


if __name__ == "__main__":
    main()
