"""DICOM: one file with one or many frames, or a folder with a series of slices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retreg.errors import FileError
from retreg.files.dicom_geometry import Frame, frames_of, stacked
from retreg.files.dicom_header import read_header
from retreg.files.dicom_pixels import pixels_of, refuse_large_header, voxel_type
from retreg.files.doors import existing_file, reading
from retreg.files.formats import Format, recognised
from retreg.files.limits import MAX_SERIES_FILES, refuse_large_volume
from retreg.image import Image

_CLEARLY_MORE = 4  # a series is the main one when no other has a quarter of its slices


@dataclass(frozen=True, eq=False)
class _Slice:
    """A file of a series: its path, header without pixels, and its only frame."""

    path: Path
    header: Any
    frame: Frame

    @property
    def layout(self) -> tuple[Any, ...]:
        """What the slices of one volume have in common."""
        names = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation")
        return tuple(self.header.get(name) for name in names)


def read_dicom_file(path: Path) -> Image:
    """The image in one file; frames are sorted by position where they have one.

    Without an orientation, as often in ophthalmic photography, the world is that of a picture
    times the pixel spacing. MONOCHROME1 is not inverted. Raises FileError or GeometryError.
    """
    header = read_header(path)
    if not header.get("Rows") or not header.get("Columns"):
        raise FileError(f"{path.name} holds no DICOM image, or is cut off; choose another file.")
    refuse_large_header(path.name, header)
    frames = frames_of(header)
    order, grid = stacked(frames, int(header.Columns), int(header.Rows))
    pixels = pixels_of(path, header, frames, voxel_type(header, frames))
    return Image(np.ascontiguousarray(pixels[:, order]), grid)


def read_dicom_series(folder: Path) -> Image:
    """The volume of the one series in a folder; file names do not matter, subfolders do not count.

    Beside it there may be other files, and series that are much smaller, such as a localizer.
    Raises FileError when there is no series, no main one, or when slices are missing.
    """
    slices = _main_series(folder)
    if len(slices) == 1:
        with reading(slices[0].path.name, Format.DICOM.value):
            return read_dicom_file(slices[0].path)
    if any(int(s.header.get("NumberOfFrames") or 1) > 1 for s in slices):
        raise FileError(
            f"The series in {folder.name} is spread over {len(slices)} files of many frames; give "
            "one of these files instead."
        )
    if len({s.layout for s in slices}) > 1:
        raise FileError(
            f"The slices in {folder.name} differ in size or colour; export one stack of slices."
        )
    if slices[0].frame.axes is None:
        raise FileError(
            f"The {len(slices)} images in {folder.name} have no positions in space; give one of "
            "the files instead."
        )
    header = slices[0].header
    order, grid = stacked([s.frame for s in slices], int(header.Columns), int(header.Rows))
    return Image(_volume([slices[n] for n in order], folder.name), grid)


def _volume(slices: Sequence[_Slice], name: str) -> np.ndarray:
    """(channels, k, j, i) of slices in order."""
    kind = np.result_type(*{voxel_type(s.header, [s.frame]) for s in slices})
    first = _pixels(slices[0], kind)
    refuse_large_volume(name, first.nbytes * len(slices))
    out = np.empty((first.shape[0], len(slices), *first.shape[2:]), first.dtype)
    out[:, :1] = first
    for n, one in enumerate(slices[1:], start=1):
        out[:, n : n + 1] = _pixels(one, kind)
    return out


def _pixels(one: _Slice, kind: np.dtype[Any]) -> np.ndarray:
    with reading(one.path.name, Format.DICOM.value):
        return pixels_of(one.path, one.header, [one.frame], kind)


def _main_series(folder: Path) -> list[_Slice]:
    """The slices of the only or clearly largest series, each instance once."""
    series: dict[str, dict[str, _Slice]] = defaultdict(dict)
    for path in _dicom_files(folder):
        with reading(path.name, Format.DICOM.value):
            header = read_header(path)
            if header.get("Rows") and header.get("Columns"):
                found = _Slice(path, header, frames_of(header)[0])
                instances = series[str(header.get("SeriesInstanceUID", ""))]
                instances.setdefault(str(header.get("SOPInstanceUID", path.name)), found)
    if not series:
        raise FileError(f"There is no DICOM image in the folder {folder.name!r}; choose another.")
    counts = sorted((len(slices) for slices in series.values()), reverse=True)
    if len(counts) > 1 and counts[1] * _CLEARLY_MORE > counts[0]:
        raise FileError(
            f"The folder {folder.name!r} holds {len(counts)} DICOM series, with "
            f"{', '.join(map(str, counts[:10]))} images; put one series into a folder of its own."
        )
    return list(max(series.values(), key=len).values())


def _dicom_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.stat().st_size)
    if len(files) > MAX_SERIES_FILES:
        raise FileError(
            f"The folder {folder.name!r} holds {len(files)} files; at most {MAX_SERIES_FILES} are "
            "read, so put the series into a folder of its own."
        )
    return [path for path in files if _is_dicom(existing_file(path))]


def _is_dicom(path: Path) -> bool:
    try:
        return recognised(path) is Format.DICOM
    except (FileError, OSError):
        return False
