"""The files that `retreg register` leaves in its output folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from retreg.errors import FileError
from retreg.files import write_image, write_markups, write_transform
from retreg.files.names import usable_name
from retreg.geometry import Grid
from retreg.image import Image
from retreg.maps import KINDS, map_names, registration_map
from retreg.messages import RegistrationResult
from retreg.resample import resample
from retreg.wire import dumps
from retreg_server.reporting.map_figures import map_picture, world_unit
from retreg_server.reporting.overlays import overlay, write_png

RESULT_FILES = (
    "transform.h5",
    "fixed_keypoints.mrk.json",
    "moving_keypoints.mrk.json",
    "fixed.nrrd",
    "warped.nrrd",
    "warped.png",
    "overlay.png",
    "result.json",
)


def check_writable(folder: Path) -> None:
    """Create the folder. Raises FileError when that, or a file in it, is not possible."""
    usable_name(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FileError(
            f"The output folder {folder.name} cannot be written; choose another one with -o."
        ) from error


def write_outputs(
    folder: Path,
    fixed: Image,
    moving: Image,
    result: RegistrationResult,
    maps: bool = False,
    fill: float | None = None,
    vessels: Image | None = None,
) -> None:
    """Write every result file; they appear in folder together or not at all.

    transform.h5, fixed_keypoints.mrk.json, moving_keypoints.mrk.json, fixed.nrrd (the fixed image
    as it was placed), warped.nrrd (and warped.png for pictures), overlay.png, result.json; with
    maps also map_NAME.nrrd and map_NAME.png for each map of retreg.maps. fill: the value beyond
    the moving image, its background for None. vessels: a label map, for map_vessels.nrrd and .png.
    Raises FileError when the disk does not take them.
    """
    try:
        staging = Path(tempfile.mkdtemp(prefix=".retreg-", dir=folder))
        try:
            _write_images(staging, fixed, moving, result, fill)
            _write_result(staging, fixed, moving, result, maps)
            if vessels is not None:
                write_image(staging / "map_vessels.nrrd", vessels)
                write_png(staging / "map_vessels.png", 255 * vessels.array[0, 0])
            for path in staging.iterdir():
                path.replace(folder / path.name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise FileError(
            f"The results could not be written to {folder.name} ({error.strerror}); free some "
            "space or choose another folder with -o."
        ) from error


def _write_images(
    folder: Path, fixed: Image, moving: Image, result: RegistrationResult, fill: float | None
) -> None:
    warped = resample(moving, result.transform, fixed.grid, fill=fill)
    write_image(folder / "fixed.nrrd", fixed)
    write_image(folder / "warped.nrrd", warped)
    if fixed.is_picture:
        write_image(folder / "warped.png", warped)
    write_png(folder / "overlay.png", overlay(fixed, moving, result))


def _write_result(
    folder: Path,
    fixed: Image,
    moving: Image,
    result: RegistrationResult,
    maps: bool,
) -> None:
    write_transform(folder / "transform.h5", result.transform, fixed.grid)
    write_markups(folder / "fixed_keypoints.mrk.json", result.fixed_keypoints)
    write_markups(folder / "moving_keypoints.mrk.json", result.moving_keypoints)
    message = summary(result)
    message["fixed"], message["moving"] = _placed(fixed.grid), _placed(moving.grid)
    if maps:
        message["maps"] = _write_maps(folder, fixed.grid, result)
    strict = json.loads(dumps(message))  # infinite numbers are spelled out
    text = json.dumps(strict, indent=2, allow_nan=False)
    (folder / "result.json").write_text(text + "\n", encoding="utf-8")


def _placed(grid: Grid) -> dict[str, Any]:
    """What result.json says of where an image was taken to lie."""
    return {
        "size": list(grid.size),
        "spacing": grid.spacing.tolist(),
        "unit": world_unit(grid),
        "world_from_index": grid.world_from_index.tolist(),
    }


def _write_maps(folder: Path, grid: Grid, result: RegistrationResult) -> dict[str, Any]:
    """Write the maps; what result.json says of each of them."""
    lines = {}
    for name in map_names(grid, result.backward):
        values = registration_map(name, result.transform, result.backward, grid)
        unit = world_unit(grid) if KINDS[name].unit else ""
        write_image(folder / f"map_{name}.nrrd", values)
        write_png(folder / f"map_{name}.png", map_picture(name, values, unit))
        numbers = values.array.astype(np.float64)
        lines[name] = {
            "unit": unit,
            "smallest": float(numbers.min()),
            "median": float(np.median(numbers)),
            "p95": float(np.percentile(numbers, 95)),
            "largest": float(numbers.max()),
        }
    return lines


def summary(result: RegistrationResult) -> dict[str, Any]:
    """What result.json says: provenance, quality numbers, verdict, reason and notes."""
    provenance = dict(result.provenance)
    return {
        **provenance,
        "transform": provenance.get("options", {}).get("transform"),
        "keypoints": len(result.fixed_keypoints),
        "quality": dict(result.quality.numbers),
        "verdict": result.quality.verdict,
        "reason": result.quality.reason,
        "notes": list(result.notes),
    }
