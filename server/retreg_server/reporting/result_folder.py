"""The files that `retreg register` leaves in its output folder."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from retreg.errors import FileError, InputError, RegistrationError
from retreg.files import write_image, write_markups, write_transform
from retreg.files.names import usable_name
from retreg.files.pictures import fits_png
from retreg.geometry import Grid
from retreg.image import Image
from retreg.maps import KINDS, map_names, registration_map
from retreg.messages import RegistrationResult
from retreg.placement_numbers import placement_numbers
from retreg.resample import resample
from retreg.transforms import Affine, as_field
from retreg.wire import dumps
from retreg_server.reporting.map_figures import map_picture, world_unit
from retreg_server.reporting.overlays import overlay, write_png
from retreg_server.reporting.sources import Source

RESULT_FILES = (
    "transform.h5",
    "transform_backward.h5",
    "keypoints.csv",
    "fixed_keypoints.mrk.json",
    "moving_keypoints.mrk.json",
    "fixed.nrrd",
    "warped.nrrd",
    "warped.png",
    "overlay.png",
    "result.json",
)
MAP_FILES = tuple(
    f"map_{name}.{ending}" for name in (*KINDS, "vessels") for ending in ("nrrd", "png")
)
SWEEP = "smoothing-{}"  # the folder of one result of a sweep
MOST_NODES_BACK = 300_000  # of the way back; it costs much more than the way there
_CHECKED = 20  # places along an axis where the way back is checked
_OFF_NODES = np.array([0.45, 0.55, 0.4])  # voxels from them: at nodes of a field it is exact


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


def refuse_inputs_within(
    folder: Path, inputs: Iterable[Path], names: Iterable[str] = (*RESULT_FILES, *MAP_FILES)
) -> None:
    """Raise FileError when an image lies in folder under one of the names that a result takes."""
    taken = {(folder / name).resolve() for name in names}
    for path in map(usable_name, inputs):
        if path.resolve() in taken:
            raise FileError(
                f"{path.name} in the output folder {folder.name} is one of the images and would be "
                "replaced by a result; choose another folder with -o."
            )


@contextmanager
def cleared(folder: Path) -> Iterator[None]:
    """Remove what an earlier run left in folder once the work within the block is done.

    Input that could not be used leaves everything as it was; work without a result does not.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, RegistrationError) or not isinstance(error, InputError):
            _clear_all(folder)
        raise
    _clear_all(folder)


def _clear_all(folder: Path) -> None:
    """Remove results in the folder, and in those of a sweep in it, which go when they are empty."""
    for each in (folder, *folder.glob(SWEEP.format("*"))):
        for name in (*RESULT_FILES, *MAP_FILES):
            (each / name).unlink(missing_ok=True)
        if each != folder and not any(each.iterdir()):
            each.rmdir()


def write_outputs(
    folder: Path,
    fixed: Image,
    moving: Image,
    result: RegistrationResult,
    maps: bool = False,
    fill: float | None = None,
    sources: Sequence[Source] = (),
    vessels: Image | None = None,
) -> None:
    """Write every result file; they appear in folder together or not at all.

    RESULT_FILES, with warped.png for pictures that PNG can hold; with maps also map_NAME.nrrd and
    .png for each map of retreg.maps. fill: the value beyond the moving image, its background for
    None. sources: of both images. vessels: a label map, for map_vessels.nrrd and .png. Raises
    FileError when the disk does not take them.
    """
    try:
        staging = Path(tempfile.mkdtemp(prefix=".retreg-", dir=folder))
        try:
            _write_images(staging, fixed, moving, result, fill, vessels)
            message = summary(result, fixed.grid, moving.grid, sources)
            message["backward"] = _write_transforms(staging, result, fixed.grid, moving.grid)
            _write_keypoints(staging, result)
            if maps:
                message["maps"] = _write_maps(staging, fixed, result)
            strict = json.loads(dumps(message))  # infinite numbers are spelled out
            text = json.dumps(strict, indent=2, allow_nan=False)
            (staging / "result.json").write_text(text + "\n", encoding="utf-8")
            for name in (*RESULT_FILES, *MAP_FILES):
                (folder / name).unlink(missing_ok=True)
            for path in sorted(staging.iterdir(), key=lambda path: path.name == "result.json"):
                path.replace(folder / path.name)  # what says that all is there comes last
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise FileError(
            f"The results could not be written to {folder.name} ({error.strerror}); free some "
            "space or choose another folder with -o."
        ) from error


def _write_images(
    folder: Path,
    fixed: Image,
    moving: Image,
    result: RegistrationResult,
    fill: float | None,
    vessels: Image | None,
) -> None:
    if vessels is not None:
        write_image(folder / "map_vessels.nrrd", vessels)
        write_png(folder / "map_vessels.png", 255 * vessels.array[0, 0])
    write_image(folder / "fixed.nrrd", fixed)
    warped = resample(moving, result.transform, fixed.grid, fill=fill)
    write_image(folder / "warped.nrrd", warped)
    if fits_png(warped):
        write_image(folder / "warped.png", warped)
    write_png(folder / "overlay.png", overlay(fixed, moving, result))


def _write_transforms(
    folder: Path, result: RegistrationResult, fixed: Grid, moving: Grid
) -> dict[str, Any]:
    """Write both ways; what result.json says of the way back: how far from exact it is."""
    write_transform(folder / "transform.h5", result.transform, fixed)
    back = result.inverse
    if not isinstance(back, Affine):
        back = as_field(back, moving, most_nodes=MOST_NODES_BACK)
    write_transform(folder / "transform_backward.h5", back, moving)
    nodes = moving.lattice(max(1, max(moving.size) // _CHECKED))
    points = moving.world(moving.index(nodes) + _OFF_NODES * (np.array(moving.size) > 1))
    points = points[fixed.contains(back(points))]
    missed = np.linalg.norm(result.transform(back(points)) - points, axis=1)
    return {
        "file": "transform_backward.h5",
        "largest_residual": float(missed.max(initial=0.0)),
        "unit": world_unit(moving),
    }


def _write_keypoints(folder: Path, result: RegistrationResult) -> None:
    sides = {"fixed": result.fixed_keypoints, "moving": result.moving_keypoints}
    for role, keypoints in sides.items():
        write_markups(folder / f"{role}_keypoints.mrk.json", keypoints)
    with (folder / "keypoints.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        heads = [f"{role}_{axis}" for role in sides for axis in "xyz"]
        table.writerow(["label", *heads, "weight", "inlier"])
        rows = np.hstack([keypoints.points for keypoints in sides.values()]).round(6)
        fixed = result.fixed_keypoints
        columns = (rows.tolist(), fixed.weights.tolist(), fixed.inliers.tolist())
        for n, (row, weight, inlier) in enumerate(zip(*columns, strict=True), start=1):
            table.writerow([n, *row, weight, int(inlier)])


def _placed(grid: Grid) -> dict[str, Any]:
    """What result.json says of where an image was taken to lie."""
    return {
        "size": list(grid.size),
        "spacing": grid.spacing.tolist(),
        "unit": world_unit(grid),
        "world_from_index": grid.world_from_index.tolist(),
    }


def _write_maps(folder: Path, fixed: Image, result: RegistrationResult) -> dict[str, Any]:
    """Write the maps; what result.json says of each of them."""
    grid, lines = fixed.grid, {}
    for name in map_names(grid, result.backward):
        values = registration_map(name, result.transform, result.backward, grid)
        unit = world_unit(grid) if KINDS[name].unit else ""
        write_image(folder / f"map_{name}.nrrd", values)
        write_png(folder / f"map_{name}.png", map_picture(name, values, unit, fixed))
        numbers = values.array.astype(np.float64)
        lines[name] = {
            "unit": unit,
            "smallest": float(numbers.min()),
            "median": float(np.median(numbers)),
            "p95": float(np.percentile(numbers, 95)),
            "largest": float(numbers.max()),
        }
    return lines


def summary(
    result: RegistrationResult, fixed: Grid, moving: Grid, sources: Sequence[Source] = ()
) -> dict[str, Any]:
    """What result.json says: provenance, images, what the transform does, quality and verdict."""
    provenance = dict(result.provenance)
    unit = world_unit(fixed)
    return {
        **provenance,
        "transform": provenance.get("options", {}).get("transform"),
        "fixed": {**_named(sources[:1]), **_placed(fixed)},
        "moving": {**_named(sources[1:]), **_placed(moving)},
        "placement": _placement(result, fixed, moving),
        "keypoints": len(result.fixed_keypoints),
        "quality": {_in_unit(name, unit): x for name, x in result.quality.numbers.items()},
        "verdict": result.quality.verdict,
        "reason": result.quality.reason,
        "notes": list(result.notes),
    }


def _named(sources: Sequence[Source]) -> dict[str, str]:
    return asdict(sources[0]) if sources else {}


def _in_unit(name: str, unit: str) -> str:
    """The name of a number with its true unit: _mm is the one of the world, pixels or not."""
    return f"{name.removesuffix('_mm')}_{unit}" if name.endswith("_mm") else name


def _placement(result: RegistrationResult, fixed: Grid, moving: Grid) -> dict[str, Any]:
    numbers = placement_numbers(result.transform, fixed)
    axis = numbers.rotation_axis
    return {
        "moving_from_fixed": numbers.matrix.tolist(),
        "exact": numbers.is_exact,
        "rotation_deg": numbers.rotation_deg,
        **({} if axis is None else {"rotation_axis": axis.tolist()}),
        "scale": numbers.scale,
        "shift": numbers.shift.tolist(),
        "mirrored": numbers.is_mirrored,
        "unit": world_unit(moving),
    }
