"""Thin-plate splines in ITK's transform files, as Slicer writes them; SimpleITK reads none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retreg.errors import FileError
from retreg.files.doors import library
from retreg.splines import Kernel
from retreg.transforms import ThinPlateSpline, Transform

_KERNELS: dict[str, Kernel] = {
    "ThinPlateSplineKernelTransform": "r",
    "ThinPlateR2LogRSplineKernelTransform": "r2logr",
}
_LISTS = (  # ITK misspelled both for years
    ("TransformParameters", "TranformParameters"),
    ("TransformFixedParameters", "TranformFixedParameters"),
)


class Entry(NamedTuple):
    """One transform of a file: its class and dimension, and its two lists of numbers."""

    kind: str
    dimension: int
    parameters: np.ndarray
    fixed_parameters: np.ndarray


def text_entries(path: Path) -> list[Entry]:
    """The transforms of a text file (.tfm, .txt) in its order, without composites around them."""
    entries, found = [], {}
    for line in path.read_text(encoding="latin-1").splitlines():
        key, _, value = line.partition(": ")
        found[key] = value
        if key.startswith("FixedParameters"):
            numbers = [np.array(found.get(name, "").split(), float) for name in
                       ("Parameters", "FixedParameters")]  # fmt: skip
            entries += _entry(found.get("Transform", ""), *numbers)
            found = {}
    return entries


def hdf5_entries(path: Path) -> list[Entry]:
    """The transforms of an .h5 file in its order, without composites around them."""
    with library("h5py", path.name, "an HDF5 file"):
        import h5py
    entries = []
    with h5py.File(path) as file:
        groups = file["TransformGroup"]
        for number in sorted(groups, key=int):
            group = groups[number]
            kind = group["TransformType"][0].decode("ascii")
            lists = [_first_of(group, names) for names in _LISTS]
            if all(numbers is not None for numbers in lists):
                entries += _entry(kind, *lists)
    return entries


def spline_of(entry: Entry, name: str) -> ThinPlateSpline:
    """The spline: ITK keeps the fixed points as parameters, the moving ones as fixed parameters.

    Source: itkKernelTransform.hxx, SetParameters and SetFixedParameters.
    """
    fixed, moving = (_points(numbers, entry.dimension) for numbers in entry[2:])
    if len(fixed) != len(moving):
        raise FileError(f"{name} holds a spline with another number of points on either side.")
    return ThinPlateSpline(fixed, moving, kernel=_KERNELS[entry.kind])


def is_spline(entry: Entry) -> bool:
    """Whether the entry is a thin-plate spline of a kernel that is known here."""
    return entry.kind in _KERNELS


def only_spline(entries: list[Entry], name: str) -> Transform | None:
    """The spline of a file that holds one and nothing else; None where there is none.

    Raises FileError for a spline among other transforms.
    """
    if not any(map(is_spline, entries)):
        return None
    if len(entries) > 1:
        raise FileError(
            f"{name} holds a thin-plate spline among other transforms; save each of them as a file "
            "and name the files in the order in which points pass through them."
        )
    return spline_of(entries[0], name)


def _entry(kind: str, parameters: np.ndarray, fixed_parameters: np.ndarray) -> list[Entry]:
    name, _, sizes = kind.partition("_")
    if name == "CompositeTransform":
        return []
    return [Entry(name, int(sizes.split("_")[1]), parameters, fixed_parameters)]


def _first_of(group: Any, names: tuple[str, ...]) -> Any:
    """The numbers below one of the names, or None."""
    return next((np.array(group[name]) for name in names if name in group), None)


def _points(numbers: np.ndarray, dimension: int) -> np.ndarray:
    points = np.zeros((numbers.size // dimension, 3))
    points[:, :dimension] = numbers.reshape(-1, dimension)
    return points
