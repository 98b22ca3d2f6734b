"""What is left of a mosaic: picture, mask, a transform for each view, report and overview."""

from __future__ import annotations

import colorsys
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

from retreg.errors import FileError
from retreg.files import write_image, write_transform
from retreg.geometry import Grid
from retreg.image import Image
from retreg.placement_numbers import placement_numbers
from retreg.transforms import Affine, Chain, Transform
from retreg.wire import dumps
from retreg_server.mosaic.blending import Layer, alike, blended, depth_of, gains_of, rim_of
from retreg_server.mosaic.placement import JudgedSeam, Mosaic
from retreg_server.registration.model import Stages
from retreg_server.reporting.canvas import union_grid
from retreg_server.reporting.map_figures import world_unit
from retreg_server.reporting.overlays import write_png
from retreg_server.reporting.sheet import Panel, Sign, sheet
from retreg_server.reporting.sources import Source
from retreg_server.reporting.views import shown, views

PICTURE, MASK, OVERVIEW, REPORT = "mosaic.png", "mask.png", "overview.png", "mosaic.json"
EXACT = "mosaic.nrrd"  # of views with a scale, which a PNG does not keep
TRANSFORMS = "transforms"
MOSAIC_FILES = (PICTURE, MASK, OVERVIEW, EXACT, REPORT)


@dataclass(frozen=True, eq=False)
class Views:
    """The views that were given: pictures, names that are folders, and their files."""

    images: Sequence[Image]
    names: Sequence[str]
    sources: Sequence[Source]


@dataclass(frozen=True, eq=False)
class Canvas:
    """The grid of the mosaic and the views on it, by their numbers.

    reference_from_canvas: between their worlds. Pixels without a scale count from the corner of the
    mosaic, so that its world is its own pixels.
    """

    grid: Grid
    reference_from_canvas: Affine
    layers: dict[int, Layer]


def canvas_of(views: Views, mosaic: Mosaic, longest: int | None) -> Canvas:
    """Lay out a mosaic. Raises InputError when it would be too large."""
    numbers = sorted(mosaic.placed)
    images = alike([views.images[n] for n in numbers])
    depths = [depth_of(image) for image in images]
    rims = [mosaic.placed[n](rim_of(depth)) for n, depth in zip(numbers, depths, strict=True)]
    reference = views.images[mosaic.reference].grid
    grid = union_grid(reference, np.concatenate(rims), longest)
    to_reference = Affine.identity()
    if reference.is_unscaled_picture:
        to_reference = Affine(grid.world_from_index)
        grid = Grid(grid.size, np.eye(4))
    layers = {}
    for n, image, depth, rim in zip(numbers, images, depths, rims, strict=True):
        transform = _in_one_row(to_reference, mosaic.placed[n].view_from_mosaic)
        layers[n] = Layer(image, depth, transform, to_reference.inverse(rim))
    return Canvas(grid, to_reference, layers)


def _in_one_row(first: Affine, then: Transform) -> Transform:
    """First one, then the other, with as few parts as possible."""
    parts = then.transforms if isinstance(then, Chain) else (then,)
    start = parts[0]
    assert isinstance(start, Affine)
    joined = Affine(start.moving_from_fixed @ first.moving_from_fixed)
    return Chain((joined, *parts[1:])) if len(parts) > 1 else joined


def write_mosaic(
    folder: Path, views_: Views, mosaic: Mosaic, longest: int | None, stages: Stages
) -> None:
    """Write MOSAIC_FILES and a transform for each view; together or not at all.

    EXACT only where the views have a scale. Raises InputError for a canvas that would be too large,
    FileError when the disk does not take the files.
    """
    canvas = canvas_of(views_, mosaic, longest)
    layers = list(canvas.layers.values())
    gains = gains_of(layers, canvas.grid)
    picture, mask = blended(layers, gains, canvas.grid, stages)
    by_view = dict(zip(canvas.layers, gains.tolist(), strict=True))
    try:
        staging = Path(tempfile.mkdtemp(prefix=".retreg-", dir=folder))
        try:
            write_image(staging / PICTURE, picture)
            write_image(staging / MASK, mask)
            if not picture.grid.is_unscaled_picture:
                write_image(staging / EXACT, picture)
            write_png(staging / OVERVIEW, overview(views_, mosaic, canvas, picture))
            (staging / TRANSFORMS).mkdir()
            for number, layer in canvas.layers.items():
                path = staging / TRANSFORMS / f"{views_.names[number]}.h5"
                write_transform(path, layer.transform, canvas.grid)
            report = json.loads(dumps(report_on(views_, mosaic, canvas, by_view)))
            text = json.dumps(report, indent=2, allow_nan=False)
            (staging / REPORT).write_text(text + "\n", encoding="utf-8")
            clear(folder)
            (folder / TRANSFORMS).mkdir(exist_ok=True)
            made = [path for path in staging.rglob("*") if path.is_file()]
            for path in sorted(made, key=lambda path: path.name == REPORT):
                path.replace(folder / path.relative_to(staging))
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise FileError(
            f"The mosaic could not be written to {folder.name} ({error.strerror}); free some "
            "space or choose another folder with -o."
        ) from error


def earlier_files(folder: Path) -> tuple[str, ...]:
    """The names below folder that an earlier mosaic has left, by its own report."""
    try:
        views_ = json.loads((folder / REPORT).read_text(encoding="utf-8"))["views"]
        names = [Path(view["transform"]).name for view in views_ if view["placed"]]
    except (OSError, ValueError, LookupError, TypeError):
        return ()
    return (*MOSAIC_FILES, *(f"{TRANSFORMS}/{name}" for name in names))


def refuse_files_of_others(folder: Path) -> None:
    """Raise FileError for a file that a mosaic would replace and that is none of a mosaic."""
    own = earlier_files(folder)
    for name in MOSAIC_FILES:
        if name not in own and (folder / name).is_file():
            raise FileError(
                f"{name} in {folder.name} is not of an earlier mosaic; choose another folder with "
                "-o."
            )


def clear(folder: Path) -> None:
    """Remove what an earlier mosaic left in folder, and nothing else."""
    for name in earlier_files(folder):
        (folder / name).unlink(missing_ok=True)
    if (folder / TRANSFORMS).is_dir() and not any((folder / TRANSFORMS).iterdir()):
        (folder / TRANSFORMS).rmdir()


def report_on(
    views_: Views, mosaic: Mosaic, canvas: Canvas, gains: dict[int, list[float]]
) -> dict[str, Any]:
    """What mosaic.json says; lengths in the unit of the mosaic."""
    grid, count = canvas.grid, len(views_.images)
    return {
        "version": version("retreg"),
        "reference": views_.sources[mosaic.reference].name,
        "size": list(grid.size[:2]),
        "unit": world_unit(grid),
        "world_from_index": grid.world_from_index.tolist(),
        "seams": _misses(canvas, mosaic.seams),
        "views": [_view(n, views_, mosaic, canvas, gains) for n in range(count)],
        "pairs": [_pair_line(n, views_, mosaic, canvas) for n in range(len(mosaic.pairs))],
        "left_out": {views_.sources[n].name: why for n, why in mosaic.left_out.items()},
    }


def _view(
    number: int, views_: Views, mosaic: Mosaic, canvas: Canvas, gains: dict[int, list[float]]
) -> dict[str, Any]:
    verdict, reason = mosaic.judged(number, views_.names)
    said = {**asdict(views_.sources[number]), "verdict": verdict, "reason": reason}
    if number not in mosaic.placed:
        return {**said, "placed": False}
    numbers = placement_numbers(canvas.layers[number].transform, canvas.grid)
    own = [seam for seam in mosaic.seams if number in seam.views]
    return {
        **said,
        "placed": True,
        "transform": f"{TRANSFORMS}/{views_.names[number]}.h5",
        "rotation_deg": numbers.rotation_deg,
        "scale": numbers.scale,
        "gain": gains[number],
        "seams": _misses(canvas, own),
    }


def _pair_line(
    position: int, views_: Views, mosaic: Mosaic, canvas: Canvas
) -> dict[str, Any]:
    pair = mosaic.pairs[position]
    seam = next((each for each in mosaic.seams if each.pair is pair), None)
    said = {
        "fixed": views_.sources[pair.fixed].name,
        "moving": views_.sources[pair.moving].name,
        "verdict": pair.verdict,
        "reason": pair.reason,
        "used": seam is not None,
    }
    if pair in mosaic.dropped:
        said["contradicts"] = True
    if seam is None:
        return said
    quality = {"verdict": seam.quality.verdict, "reason": seam.quality.reason}
    return {**said, "in_mosaic": quality, "seams": _misses(canvas, [seam])}


def _misses(canvas: Canvas, seams: Sequence[JudgedSeam]) -> dict[str, float]:
    """By how much control points miss each other, in the unit of the mosaic."""
    misses = np.concatenate([seam.misses for seam in seams])
    size = np.linalg.det(canvas.reference_from_canvas.moving_from_fixed[:2, :2]) ** 0.5
    return {
        "median": float(np.median(misses) / size),
        "p95": float(np.percentile(misses, 95) / size),
        "control_points": len(misses),
    }


def overview(views_: Views, mosaic: Mosaic, canvas: Canvas, picture: Image) -> np.ndarray:
    """The mosaic with the outlines of all views and what is said of each; (rows, columns, 3)."""
    view = views(canvas.grid)[0]
    drawn = Picture.fromarray(shown(picture, Affine.identity(), view))
    draw = ImageDraw.Draw(drawn)
    signs = []
    for place, (number, layer) in enumerate(canvas.layers.items()):
        hue = place / len(canvas.layers)
        red, green, blue = (round(255 * x) for x in colorsys.hsv_to_rgb(hue, 0.65, 1.0))
        outline = [tuple(point) for point in view.index(layer.rim)[:, :2].tolist()]
        draw.line([*outline, outline[0]], fill=(red, green, blue), width=2)
        verdict, _ = mosaic.judged(number, views_.names)
        signs.append(Sign((red, green, blue), f"{views_.names[number]}: {verdict}", is_ring=False))
    seams, unit = _misses(canvas, mosaic.seams), world_unit(canvas.grid)
    caption = [
        f"Control points of neighbours miss each other by {seams['median']:.2g} {unit} in the "
        f"median, 95 of 100 by less than {seams['p95']:.2g} {unit}.",
        *(f"{views_.names[n]} was left out. {why}" for n, why in mosaic.left_out.items()),
    ]
    title = f"Mosaic of {len(canvas.layers)} of {len(views_.images)} views"
    return sheet([[Panel(title, np.asarray(drawn))]], signs, caption)
