"""Ways around what ITK's NIfTI reader loses or refuses, and a word where a header says two things.

ITK decides where an image lies, because SimpleITK and Slicer will place it that way: by the sform
if its code is 1 or there is no qform, and if its axes are at right angles; else by the qform. The
spacing is always that of pixdim. Only what ITK refuses, a sheared sform alone, is placed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from retreg.errors import FileError, OptionError
from retreg.files.headers import Promise, is_packed, unpacked
from retreg.files.nifti_header import (
    LARGEST_NIFTI_1_AXIS,
    NIFTI_2_BYTES,
    NiftiHeader,
)
from retreg.geometry import Grid

NiftiGeometry = Literal["itk", "sform", "qform"]
GEOMETRIES = ("itk", "sform", "qform")
_CHUNK = 1 << 20


def read_nifti_header(path: Path) -> NiftiHeader:
    """The header of a NIfTI file that may be packed."""
    with unpacked(path) as file:
        return NiftiHeader(file.read(NIFTI_2_BYTES))


def chosen_form(name: str, header: NiftiHeader, geometry: NiftiGeometry) -> np.ndarray | None:
    """(4, 4) from the index to LPS mm by the form that was asked for, None for what ITK takes.

    Raises FileError when the file has no such form, OptionError for an unknown choice.
    """
    if geometry not in GEOMETRIES:
        raise OptionError(
            f"{geometry!r} was given for the NIfTI geometry; {', '.join(GEOMETRIES)} are known."
        )
    if geometry == "itk":
        return None
    form = header.sform if geometry == "sform" else header.qform
    if form is None:
        other = "qform" if geometry == "sform" else "sform"
        raise FileError(f"{name} has no {geometry}: its code is 0; choose {other}, or none.")
    return form


def contradiction(header: NiftiHeader, grid: Grid) -> str:
    """A note when a form of the header puts a voxel half a voxel or more off grid, or nothing.

    grid: where the image was read to lie.
    """
    index_corners = grid.index(grid.corners())
    found = {}
    for kind, form in (("sform", header.sform), ("qform", header.qform)):
        if form is not None:
            there = index_corners @ form[:3, :3].T + form[:3, 3]
            found[kind] = float(np.linalg.norm(there - grid.corners(), axis=1).max())
    used = grid.spacing[: 2 if grid.is_plane else 3]
    off = {kind: far for kind, far in found.items() if not far <= used.min() / 2}
    if not off:
        return ""
    places = " and ".join(
        f"the {kind} puts it up to {far:.3g} mm off"
        if np.isfinite(far)
        else f"the {kind} holds what are no numbers"
        for kind, far in off.items()
    )
    taken = [kind for kind in found if kind not in off]
    where = f"by its {taken[0]}" if taken else "with the spacing of pixdim, as ITK and Slicer do"
    return (
        f"the header contradicts itself: it was placed {where}, and {places}; check where it lies, "
        "or choose with --nifti-geometry sform or qform."
    )


@contextmanager
def readable(
    path: Path, header: NiftiHeader, promise: Promise, with_forms: bool = True
) -> Iterator[Path]:
    """The file, or a temporary copy that ITK reads as it is meant.

    A slice is doubled, since ITK drops every axis of one voxel at the end, and with the third axis
    the height and the obliquity of the slice. The second version of the format becomes the first.
    Given a.nii.gz, ITK takes the header from there but the voxels from a.nii, if that exists. It
    goes by the name, whether the file is packed or not.
    with_forms: keep sform and qform, or leave them out. Raises FileError for an axis too long.
    """
    one_slice = prod(promise.sizes[2:3]) == 1
    if one_slice or header.version == 2 or not with_forms:
        with TemporaryDirectory() as folder:
            copy = Path(folder, path.name)
            _rewrite(path, copy, header, promise, with_forms, 2 if one_slice else 1)
            yield copy
    elif is_packed(path) != (name := path.name.lower()).endswith(".gz"):
        with TemporaryDirectory() as folder:
            yield _unpacked_copy(path, Path(folder, "voxels.nii"), promise)
    elif name.endswith(".gz") and path.with_name(path.name[:-3]).exists():
        with TemporaryDirectory() as folder:
            yield Path(copyfile(path, Path(folder, path.name)))
    else:
        yield path


def _unpacked_copy(path: Path, copy: Path, promise: Promise) -> Path:
    """The copy: as many bytes as promised, whatever else may be inflated."""
    left = promise.offset + promise.decoded_bytes
    with unpacked(path) as file, copy.open("wb") as out:
        while left > 0 and (piece := file.read(min(left, _CHUNK))):
            out.write(piece)
            left -= len(piece)
    return copy


def _rewrite(
    path: Path, copy: Path, header: NiftiHeader, promise: Promise, with_forms: bool, times: int
) -> None:
    """The same voxels under a plain header, with every plane so many times (1 or 2)."""
    sizes = (*promise.sizes, 1, 1)[: max(3, len(promise.sizes))]
    sizes = (*sizes[:2], sizes[2] * times, *sizes[3:])
    if max(sizes) > LARGEST_NIFTI_1_AXIS:
        raise FileError(
            f"{path.name} has {max(sizes)} voxels along an axis; at most {LARGEST_NIFTI_1_AXIS} "
            "can be read, so crop it or make it coarser."
        )
    plane = prod(promise.sizes[:2]) * promise.voxel_bytes
    with unpacked(path) as file, copy.open("wb") as out:
        out.write(header.as_nifti_1(sizes, with_forms))
        file.seek(promise.offset)
        for _ in range(promise.decoded_bytes // plane):
            out.write(file.read(plane) * times)
