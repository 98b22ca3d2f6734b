"""Makes the pictures of the front page and of the gallery: `make gallery`.

The eyes are simulated by the project's own generator. The head is real: two visits of one patient
of the Longitudinal MR image database of Multiple Sclerosis patients (Laboratory of Imaging
Technologies, University of Ljubljana), which is free under CC BY. Its two volumes are downloaded
when the folder named by RETREG_DATA does not hold them, and are not part of the project.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from retreg.files import read_image
from retreg.image import Image
from retreg.maps import registration_map
from retreg.messages import RegistrationRequest, RegistrationResult
from retreg.transforms import Affine
from retreg_server.demo.cases import CASES
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.registration import engine
from retreg_server.reporting.map_figures import map_picture
from retreg_server.reporting.overlays import overlay, thumbnail
from retreg_server.reporting.sheet import Panel, sheet

IMAGES = Path(__file__).parent / "images"
WIDEST = 1200  # pixels of a picture of the gallery
FRONT = 430  # and of the longer side of a panel of the front page
BASE = (
    "https://raw.githubusercontent.com/muschellij2/open_ms_data/"
    "65704901f60650824565aa5a4818611aa89716f4/longitudinal/raw/patient01/"
)
HEAD = {
    "study1_FLAIR.nii.gz": "3a2ab438704776ad75b67cd8609740a14782cc590b26fc695dff4216ad67d231",
    "study2_T1W.nii.gz": "3481e8e65ae7e920a24a04054e1019e5662aa7f09f485b8a5d9a01a72cf125cb",
}


@dataclass(frozen=True, eq=False)
class Shown:
    """A pair and what the registration made of it."""

    fixed: Image
    moving: Image
    result: RegistrationResult


def main() -> None:
    """Register the three pairs and write every picture."""
    eye = CASES[0].make()
    other = make_fundus_pair(seed=11, rotation_deg=20.0)
    pairs = {
        "eye": registered(eye.fixed, eye.moving, "auto-fundus"),
        "head": registered(*(read_image(path) for path in head_files()), "auto-brain"),
        "strangers": registered(eye.fixed, other.moving, "auto-fundus"),
    }
    IMAGES.joinpath("gallery").mkdir(exist_ok=True)
    save(front(pairs["eye"], pairs["head"]), "front.jpg")
    for name, pair in pairs.items():
        save(overlay(pair.fixed, pair.moving, pair.result), f"gallery/{name}.jpg")
    for name in ("eye", "head"):
        save(displacements(pairs[name]), f"gallery/{name}-displacement.jpg")


def registered(fixed: Image, moving: Image, model: str) -> Shown:
    """The pair with its result, as `retreg register` gives it."""
    request = RegistrationRequest(fixed, moving, model, {})
    return Shown(fixed, moving, engine.register(request, lambda _stage, _done: None))


def front(eye: Shown, head: Shown) -> np.ndarray:
    """Both pairs in a checkerboard, before and after, side by side."""
    panels = []
    for words, pair in (("simulated eye", eye), ("real head", head)):
        for when, transform in (("before", Affine.identity()), ("after", pair.result.transform)):
            board = thumbnail(pair.fixed, pair.moving, transform, FRONT)
            panels.append(Panel(f"{words}, {when}", board))
    return sheet([panels], [], [])


def displacements(pair: Shown) -> np.ndarray:
    """The map of how far each place moved, over the fixed image."""
    grid, result = pair.fixed.grid, pair.result
    values = registration_map("displacement", result.transform, result.backward, grid)
    return map_picture("displacement", values, "px" if grid.is_plane else "mm", pair.fixed)


def save(rgb: np.ndarray, name: str) -> None:
    """Write a picture (rows, columns, 3) of at most WIDEST columns; the front page may be wider."""
    picture = Picture.fromarray(rgb)
    if name != "front.jpg":
        picture.thumbnail((WIDEST, 2 * WIDEST))
    picture.save(IMAGES / name, quality=82, optimize=True)


def head_files() -> list[Path]:
    """The two volumes, downloaded unless RETREG_DATA has them. Raises ValueError for other ones."""
    at_hand = Path(os.environ.get("RETREG_DATA", "")) / "brain" / "openms_longitudinal_raw"
    folder = Path(tempfile.mkdtemp())
    paths = []
    for name, expected in HEAD.items():
        path = at_hand / f"p01_{name}"
        if not path.exists():
            path = folder / name
            urllib.request.urlretrieve(BASE + name, path)
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise ValueError(f"{name} is not the volume that was expected; download it again.")
        paths.append(path)
    return paths


if __name__ == "__main__":
    main()
