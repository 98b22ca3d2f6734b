"""DICOM: one file with one or many frames, or a folder with a series of slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from retreg.about import About
from retreg.errors import FileError
from retreg.files.dicom_about import about_of, image_type, is_projection
from retreg.files.dicom_geometry import Frame, is_film
from retreg.files.dicom_mosaic import is_mosaic, mosaic_of
from retreg.files.dicom_pixels import Pixels, pixels_of, refuse_large_header
from retreg.files.dicom_repeats import one_per_place
from retreg.files.dicom_series import Slice, main_series, slice_in, slices_in
from retreg.files.dicom_stack import places, stacked, unplaced_grid
from retreg.files.dicom_values import fill_padding, voxel_type
from retreg.files.doors import reading
from retreg.files.formats import Format
from retreg.files.limits import refuse_large_volume
from retreg.image import Image

_STACKS = ("MR", "CT", "PT")  # whose frames are slices, in their order, if not said otherwise
_UNPLACED = "its slices have no position in space, so their order and direction may be wrong."
_LOCALIZER = "its slices say that they are a localizer, which is coarse and seldom complete."
_PROJECTED = "its slices say that they are projections of a volume, not slices of it."


def read_dicom_file(path: Path, frame: int | None = None) -> Image:
    """The image in one file; frames are sorted by position, a mosaic is unfolded.

    frame: the number of the frame to take, from 1. Without an orientation, as often in ophthalmic
    photography, the world is that of a picture times the pixel spacing. MONOCHROME1 is not
    inverted. Raises FileError or GeometryError.
    """
    one = slice_in(path)
    if one is None:
        raise FileError(f"{path.name} holds no DICOM image, or is cut off; choose another file.")
    return _image_of_one(one, frame)


def _image_of_one(one: Slice, frame: int | None) -> Image:
    header, frames = one.header, one.frames
    refuse_large_header(one.name, header)
    if frame is None:
        _refuse_several_pictures(one.name, header, frames)
    elif not 1 <= frame <= len(frames):
        raise FileError(
            f"{one.name} holds {len(frames)} frames; {frame} is none of them, so choose one from "
            f"1 to {len(frames)}."
        )
    mosaic = mosaic_of(one.name, header, one.whole()) if is_mosaic(header) else None
    pixels = _filled(pixels_of(one, frames, voxel_type(header, frames)))
    if mosaic is not None:
        return Image(mosaic.unfolded(pixels), mosaic.grid, about_of(header, True))
    if frame is not None:
        frames, pixels = frames[frame - 1 : frame], pixels[:, frame - 1 : frame]
    return _image(header, frames, pixels)


def read_dicom_series(folder: Path, frame: int | None = None) -> Image:
    """The volume of the one series in a folder and below it, whatever the names of the files.

    Where a slice lies is decided by its position only. Beside it there may be other files, and
    series that are much smaller, such as a localizer; frame is for a folder with a single file.
    Raises FileError when there is no series, no main one, or when slices are missing.
    """
    where = f"the folder {folder.name!r}"
    return image_of(*main_series(slices_in(folder), where), where, frame)


def image_of(
    chosen: Sequence[Slice], notes: tuple[str, ...], where: str, frame: int | None = None
) -> Image:
    """The image of a series that main_series has chosen, with its notes; where: as there.

    Raises FileError as read_dicom_series.
    """
    if len(chosen) == 1:
        with reading(chosen[0].name, Format.DICOM.value):
            image = _image_of_one(chosen[0], frame)
        about = replace(image.about, notes=(*notes, *image.about.notes))
        return Image(image.array, image.grid, about)
    _refuse_no_slices(where, chosen, frame)
    chosen, repeats = _one_per_place(chosen)
    header = chosen[0].header
    order, grid = stacked([s.frame for s in chosen], int(header.Columns), int(header.Rows))
    volume = _volume([chosen[n] for n in order], where)
    return Image(volume, grid, _about(header, True, len(chosen), (*notes, *repeats)))


def _image(header: Any, frames: Sequence[Frame], pixels: np.ndarray) -> Image:
    """The image of frames with their pixels (channels, frames, rows, columns)."""
    columns, rows = int(header.Columns), int(header.Rows)
    if frames[0].axes is None:
        grid = unplaced_grid(frames[0], len(frames), columns, rows)
        return Image(np.ascontiguousarray(pixels), grid, _about(header, False, len(frames), ()))
    groups = header.get("PerFrameFunctionalGroupsSequence")
    kept, notes = one_per_place(
        places(frames),
        lambda n: groups[n] if groups else header,
        lambda a, b: np.array_equal(pixels[:, a], pixels[:, b]),
    )
    order, grid = stacked([frames[n] for n in kept], columns, rows)
    chosen = np.ascontiguousarray(pixels[:, [kept[n] for n in order]])
    return Image(chosen, grid, _about(header, True, len(order), notes))


def _about(header: Any, is_oriented: bool, count: int, notes: tuple[str, ...]) -> About:
    if count > 1 and not is_oriented:
        notes = (*notes, _UNPLACED)
    if count > 1 and is_projection(header):
        notes = (*notes, _PROJECTED)
    elif count > 1 and "LOCALIZER" in image_type(header):
        notes = (*notes, _LOCALIZER)
    return about_of(header, is_oriented, notes)


def _refuse_several_pictures(name: str, header: Any, frames: Sequence[Frame]) -> None:
    """Frames of a scanner without a place are taken as a stack if their distance is known."""
    is_scan = header.get("Modality") in _STACKS and frames[0].thickness_mm is not None
    is_placed = all(frame.axes is not None for frame in frames)
    if len(frames) == 1 or is_placed or (is_scan and not is_film(header)):
        return
    what = (
        f"is a film of {len(frames)} frames"
        if is_film(header)
        else f"holds {len(frames)} pictures, which have no place in space to make a volume of them"
    )
    raise FileError(
        f"{name} {what}; one picture or one volume was expected, so choose a picture from 1 to "
        f"{len(frames)} with --frame N, or export it alone."
    )


def _refuse_no_slices(where: str, slices: Sequence[Slice], frame: int | None) -> None:
    """Raise FileError for files of a series that are no slices of one volume."""
    if any(is_mosaic(s.header) for s in slices):
        raise FileError(
            f"Each of the {len(slices)} files in {where} is a mosaic, which holds a whole volume; "
            "give one of these files instead."
        )
    if any(int(s.header.get("NumberOfFrames") or 1) > 1 for s in slices):
        raise FileError(
            f"The series in {where} is spread over {len(slices)} files of many frames; give one of "
            "these files instead."
        )
    if len(layouts := Counter(s.layout for s in slices)) > 1:
        said = ", ".join(f"{n} of {at[1]} x {at[0]}" for at, n in layouts.most_common(9))
        raise FileError(
            f"The slices in {where} differ in size or colour ({said} pixels); export one stack of "
            "slices."
        )
    if all(s.frame.axes is None for s in slices):
        raise FileError(
            f"The {len(slices)} images in {where} have no positions in space; give one of the "
            "files instead."
        )
    if frame is not None:
        raise FileError(
            f"There is a series of {len(slices)} files in {where}, not frames; leave the frame "
            "out, or give one of the files."
        )


def _one_per_place(slices: Sequence[Slice]) -> tuple[list[Slice], tuple[str, ...]]:
    def pixels(n: int) -> np.ndarray:
        return _pixels(slices[n], voxel_type(slices[n].header, [slices[n].frame])).values

    kept, notes = one_per_place(
        places([s.frame for s in slices]),
        lambda n: slices[n].header,
        lambda a, b: np.array_equal(pixels(a), pixels(b)),
    )
    return [slices[n] for n in kept], notes


def _volume(slices: Sequence[Slice], where: str) -> np.ndarray:
    """(channels, k, j, i) of slices in order."""
    kind = np.result_type(*{voxel_type(s.header, [s.frame]) for s in slices})
    first = _pixels(slices[0], kind).values
    refuse_large_volume(f"The series in {where}", first.nbytes * len(slices))
    out = np.empty((first.shape[0], len(slices), *first.shape[2:]), first.dtype)
    padding = np.zeros(out.shape[1:], bool)
    for n, one in enumerate(slices):
        pixels = _pixels(one, kind)
        out[:, n : n + 1] = pixels.values
        if pixels.padding is not None:
            padding[n] = pixels.padding[0]
    fill_padding(out, padding)
    return out


def _filled(pixels: Pixels) -> np.ndarray:
    if pixels.padding is None or not pixels.padding.any():
        return pixels.values
    values = pixels.values.copy()  # what is decoded may be read-only
    fill_padding(values, pixels.padding)
    return values


def _pixels(one: Slice, kind: np.dtype[Any]) -> Pixels:
    with reading(one.name, Format.DICOM.value):
        return pixels_of(one, [one.frame], kind)
