"""Reads again what result_folder has written, to look at it and to go on from it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retreg import wire
from retreg.errors import FileError, InputError
from retreg.files import read_image, read_transform
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality
from retreg_server.reporting.sources import Source, source_of

_PROVENANCE = ("model", "options", "version", "weights_sha256", "seconds", "edited")


@dataclass(frozen=True, eq=False)
class StoredResult:
    """A folder of results with both images.

    inputs: the files or folders that the fixed and the moving image come from; None where it is not
    found. sources: what the result says of them, if it does.
    """

    folder: Path
    fixed: Image
    moving: Image
    result: RegistrationResult
    inputs: tuple[Path | None, Path | None] = (None, None)
    sources: tuple[Source, ...] = ()


def result_folders(folder: Path) -> list[Path]:
    """The folder itself if it holds a result, else those in it that do, by name.

    Raises FileError when there is none.
    """
    candidates = [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]
    found = [path for path in candidates if (path / "result.json").is_file()]
    if not found:
        raise FileError(
            f"Neither {folder.name} nor a folder in it holds a result; name a folder that "
            "`retreg register` has written with -o."
        )
    return found[:1] if found[0] == folder else found


def read_result(folder: Path, moving: Path | None = None) -> StoredResult:
    """The result in a folder; moving: the moving image, which is looked for when it is None.

    Raises FileError when a file is missing or damaged, or when the moving image is not found.
    """
    try:
        message = wire.loads((folder / "result.json").read_bytes())
        keypoints = _keypoints(folder / "keypoints.csv")
        numbers = {
            f"{name.removesuffix('_px')}_mm" if name.endswith("_px") else name: float(value)
            for name, value in message["quality"].items()
        }
        quality = Quality(numbers, message["verdict"], message["reason"])
        provenance = {name: message[name] for name in _PROVENANCE if name in message}
        told = {role: dict(message[role]) for role in ("fixed", "moving")}
        notes = tuple(message.get("notes", ()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError):
        raise FileError(
            f"The results in {folder.name} are not complete; register the images again."
        ) from None
    transform = read_transform(folder)
    result = RegistrationResult(transform, *keypoints, quality, provenance, notes=notes)
    path = moving or _moving_image(folder, told["moving"])
    images = read_image(folder / "fixed.nrrd"), read_image(path)
    names = [(each["name"], each["sha256"]) for each in told.values() if "sha256" in each]
    sources = tuple(Source(*each) for each in names) if len(names) == 2 else ()
    fixed = _input(folder, told["fixed"]) if sources else None
    return StoredResult(folder, *images, result, (fixed, path), sources)


def _keypoints(path: Path) -> tuple[Keypoints, Keypoints]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    weights = np.array([float(row["weight"]) for row in rows])
    inliers = np.array([row["inlier"] == "1" for row in rows], dtype=bool)
    sides = (
        [[float(row[f"{role}_{axis}"]) for axis in "xyz"] for row in rows]
        for role in ("fixed", "moving")
    )
    first, second = (Keypoints(np.array(side).reshape(-1, 3), weights, inliers) for side in sides)
    return first, second


def _moving_image(folder: Path, told: dict[str, str]) -> Path:
    """As _input. Raises FileError when it is not there."""
    path = _input(folder, told)
    if path is not None:
        return path
    name = told.get("name", "the moving image")
    raise FileError(
        f"The moving image ({name}) is not beside the results in {folder.name}; name it with "
        "--moving."
    )


def _input(folder: Path, told: dict[str, str]) -> Path | None:
    """The image beside the results or where the command runs, known by its content."""
    for path in _candidates(folder, told.get("name", "")):
        if path.exists() and ("sha256" not in told or source_of(path).sha256 == told["sha256"]):
            return path
    return None


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    if name:
        yield from (place / name for place in (folder, folder.parent, folder.parent.parent, Path()))
    else:
        yield from sorted(folder.glob("moving.*"))
