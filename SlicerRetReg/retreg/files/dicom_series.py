"""The DICOM series in a folder and below it, and which of them is meant."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from retreg.errors import FileError
from retreg.files.dicom_geometry import Frame, frames_of
from retreg.files.dicom_header import read_header, read_with_pixels, refuse_deflated
from retreg.files.doors import reading
from retreg.files.formats import Format, recognised
from retreg.files.limits import MAX_SERIES_FILES

_CLEARLY_MORE = 4  # a series is the main one when no other has a quarter of its slices
_SHOWN = 10


@dataclass(frozen=True, eq=False)
class Slice:
    """An instance of a series: how a sentence calls it, its header, and its frames.

    whole: gives its pydicom data set with the pixels.
    """

    name: str
    header: Any
    frames: list[Frame]
    whole: Callable[[], Any]

    @property
    def frame(self) -> Frame:
        """The first one, and of a series of slices the only one."""
        return self.frames[0]

    @property
    def layout(self) -> tuple[Any, ...]:
        """What the slices of one volume have in common."""
        names = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation")
        return tuple(self.header.get(name) for name in names)


def slices_in(folder: Path, is_whole: bool = False) -> Iterator[Slice]:
    """The images among the files in a folder and below it; is_whole: as of slice_in."""
    for path in _dicom_files(folder):
        with reading(path.name, Format.DICOM.value):
            found = slice_in(path, is_whole)
        if found is not None:
            yield found


def slice_in(path: Path, is_whole: bool = False) -> Slice | None:
    """The image in a file, if there is one; is_whole: with everything that its header says."""
    header = read_header(path, is_whole)
    if not _is_image(header):
        return None
    return Slice(path.name, header, frames_of(header), partial(read_with_pixels, path))


def slices_of(instances: Iterable[Any]) -> Iterator[Slice]:
    """The images among pydicom data sets with pixels, such as those that an archive sent."""
    for n, data in enumerate(instances, start=1):
        name = f"Instance {n}"
        with reading(name, Format.DICOM.value):
            refuse_deflated(name, data.file_meta)
            if _is_image(data):
                yield Slice(name, data, frames_of(data), partial(_itself, data))


def main_series(slices: Iterable[Slice], where: str) -> tuple[list[Slice], tuple[str, ...]]:
    """The slices of the only or clearly largest series, and notes on what was left out.

    where: such as "the series", for sentences. Raises FileError when there is none, or several of
    like size.
    """
    series = sorted(_series(list(slices)), key=_size, reverse=True)
    if not series:
        raise FileError(f"There is no DICOM image in {where}; choose another.")
    if len(series) > 1 and _size(series[1]) * _CLEARLY_MORE > _size(series[0]):
        said = "; ".join(_described(each) for each in series[:_SHOWN])
        raise FileError(
            f"There are {len(series)} DICOM series in {where}: {said}. Give the folder of one "
            "series, or put its files into a folder of their own."
        )
    if len(series) == 1:
        return series[0], ()
    left_out = "; ".join(_described(each) for each in series[1 : _SHOWN + 1])
    return series[0], (
        f"{_described(series[0])} was taken, and what is smaller left out: {left_out}.",
    )


def _is_image(header: Any) -> bool:
    return bool(header.get("Rows") and header.get("Columns"))


def _itself(data: Any) -> Any:
    return data


def _series(slices: Sequence[Slice]) -> list[list[Slice]]:
    """The slices by series; where de-identification gave each its own UID, the numbers count.

    A series is of one patient, even where de-identification gave all the same UID.
    """
    names = ("SeriesInstanceUID", "PatientID", "SeriesNumber")
    found: dict[tuple[str, ...], list[Slice]] = defaultdict(list)
    for one in slices:
        found[tuple(str(one.header.get(name) or "") for name in names)].append(one)
    if len(found) < 3 or max(map(len, found.values())) > 2:  # a slice may be there twice
        return list(found.values())
    by_number: dict[str, list[Slice]] = defaultdict(list)
    for (_, _, number), group in found.items():
        by_number[number] += group
    return list(by_number.values())


def _size(series: Sequence[Slice]) -> int:
    """How many images the files of a series hold."""
    return sum(int(one.header.get("NumberOfFrames") or 1) for one in series)


def _described(series: Sequence[Slice]) -> str:
    """Such as "series 4 with 20 images of 256 x 256"."""
    header = series[0].header
    number = header.get("SeriesNumber")
    name = "a series" if number is None else f"series {number}"
    images = "1 image" if _size(series) == 1 else f"{_size(series)} images"
    return f"{name} with {images} of {header.Columns} x {header.Rows}"


def _dicom_files(folder: Path) -> list[Path]:
    files = sorted(_files(folder))
    return [path for path in files if _is_dicom(path)]


def _files(folder: Path) -> Iterator[Path]:
    """The files in a folder and its subfolders, without following links to other folders."""
    count = 0
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in names):
            if path.is_file() and path.stat().st_size:
                count += 1
                yield path
        if count > MAX_SERIES_FILES:
            raise FileError(
                f"The folder {folder.name!r} holds more than {MAX_SERIES_FILES} files, which is "
                "too many to read; give the folder of one series."
            )


def _is_dicom(path: Path) -> bool:
    try:
        return recognised(path) is Format.DICOM
    except (FileError, OSError):
        return False
