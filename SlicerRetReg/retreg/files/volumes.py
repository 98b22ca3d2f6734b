"""Volumes: NRRD, NIfTI and MHA, in and out. ITK decodes; the header is checked before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from retreg.errors import FileError, GeometryError
from retreg.files.doors import replacing
from retreg.files.formats import Format
from retreg.files.headers import Promise, checked_header
from retreg.files.names import usable_name
from retreg.files.nifti import NiftiGeometry, chosen_form, read_nifti_header, readable
from retreg.geometry import Grid
from retreg.image import MAX_CHANNELS, Image

VOLUME_SUFFIXES = (".nrrd", ".nii.gz", ".nii", ".mha")
_ENDINGS = {Format.NIFTI: (".nii", ".nii.gz"), Format.NRRD: (".nrrd",), Format.META: (".mha",)}
_DECODERS = {
    Format.NIFTI: "NiftiImageIO",
    Format.NRRD: "NrrdImageIO",
    Format.META: "MetaImageIO",
    Format.DICOM: "GDCMImageIO",
}


def read_volume(path: Path, found: Format, geometry: NiftiGeometry = "itk") -> Image:
    """The volume with the geometry that ITK reads, or with the form of a NIfTI file that is chosen.

    Raises FileError or GeometryError.
    """
    image = read_checked(path, found, geometry)
    return Image(channels_first(image), grid_of(image))


def read_checked(path: Path, found: Format, geometry: NiftiGeometry = "itk") -> Any:
    """The SimpleITK image of a file whose header keeps its promises. Raises FileError."""
    promise = checked_header(path, found)
    if not path.name.lower().endswith(_ENDINGS[found]):
        raise FileError(
            f"{path.name} is {found.value} by its content; rename it to end in "
            f"{' or '.join(_ENDINGS[found])}."
        )
    if found is Format.NIFTI:
        return _read_nifti(path, promise, geometry)
    return read_itk(path, found)


def _read_nifti(path: Path, promise: Promise, geometry: NiftiGeometry) -> Any:
    header = read_nifti_header(path)
    form = chosen_form(path.name, header, geometry)
    try:
        with readable(path, header, promise, with_forms=form is None) as file:
            image = read_itk(file, Format.NIFTI)
    except GeometryError:  # neither form has its axes at right angles
        form = header.sform
        with readable(path, header, promise, with_forms=False) as file:
            image = read_itk(file, Format.NIFTI)
    if len(promise.sizes) < 3 or promise.sizes[2] == 1:
        image = image[:, :, :1]
    if form is not None:
        _place(image, Grid(image.GetSize(), form))
    return image


def write_volume(path: Path, image: Image) -> None:
    """Write through ITK, compressed, colour as vectors. Raises FileError or GeometryError."""
    import SimpleITK as sitk

    suffix = next(s for s in VOLUME_SUFFIXES if path.name.lower().endswith(s))
    direction = image.grid.direction
    if suffix.startswith(".nii") and not np.allclose(direction.T @ direction, np.eye(3), atol=1e-4):
        raise GeometryError(
            f"{path.name} cannot hold a grid whose axes are not at right angles; write .nrrd."
        )
    with replacing(path, suffix) as temporary, quiet_itk():
        sitk.WriteImage(to_itk(image.array, image.grid), str(temporary), useCompression=True)


@contextmanager
def quiet_itk() -> Iterator[None]:
    """ITK's warnings go to standard error and name folders; they stay off within the block."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def read_itk(path: Path, found: Format) -> Any:
    """The SimpleITK image of 2 or 3 dimensions in the file.

    Raises FileError for time series, too many channels and complex voxels, before they are read,
    and GeometryError when the axes are not at right angles where the format demands it.
    """
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(usable_name(path)))
    reader.SetImageIO(_DECODERS[found])
    with quiet_itk():
        try:
            reader.ReadImageInformation()
            _refuse_unusable(path.name, reader)
            image = reader.Execute()
        except RuntimeError as error:
            if "orthonormal" in str(error):
                raise GeometryError("The axes of the image are not at right angles.") from None
            raise
    while image.GetDimension() > 3:
        image = image[..., 0]
    return image


def _refuse_unusable(name: str, reader: Any) -> None:
    import SimpleITK as sitk

    sizes = reader.GetSize()
    if len(sizes) < 2 or any(n != 1 for n in sizes[3:]):
        raise FileError(
            f"{name} has the size {' x '.join(map(str, sizes))}; one volume or one slice was "
            "expected, so save a single time point."
        )
    if reader.GetNumberOfComponents() > MAX_CHANNELS:
        raise FileError(
            f"{name} has {reader.GetNumberOfComponents()} values per voxel; at most "
            f"{MAX_CHANNELS} are accepted, so save a single time point or channel."
        )
    if reader.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise FileError(f"{name} has complex voxels; save their magnitude.")


def grid_of(image: Any) -> Grid:
    """The grid of a SimpleITK image of 2 or 3 dimensions; a slice gets the third axis z."""
    dimension = image.GetDimension()
    matrix = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)
    matrix[:dimension, :dimension] = direction * np.array(image.GetSpacing())
    matrix[:dimension, 3] = image.GetOrigin()
    i, j, *k = image.GetSize()
    return Grid((i, j, k[0] if k else 1), matrix)


def channels_first(image: Any) -> np.ndarray:
    """The voxels of a SimpleITK image as (channels, k, j, i), copied only if they lie otherwise."""
    import SimpleITK as sitk

    view = sitk.GetArrayViewFromImage(image)  # valid only as long as image lives
    if image.GetNumberOfComponentsPerPixel() == 1:
        kept = np.asarray(_Kept(image, view))
        return kept.reshape(1, *(1,) * (3 - kept.ndim), *kept.shape)
    view = view.reshape(-1, *view.shape[-3:]) if view.ndim == 3 else view
    return np.array(np.moveaxis(view, -1, 0), order="C")


class _Kept:
    """Memory of an image that is freed with the array made of it, and may be written to."""

    def __init__(self, image: Any, view: np.ndarray) -> None:
        self._image = image
        interface = view.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def to_itk(array: np.ndarray, grid: Grid) -> Any:
    """A 3-D SimpleITK image of (channels, k, j, i), with vector voxels if channels > 1."""
    import SimpleITK as sitk

    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.shape[0] == 1:
        image = sitk.GetImageFromArray(array[0])
    else:
        image = sitk.GetImageFromArray(
            np.ascontiguousarray(np.moveaxis(array, 0, -1)), isVector=True
        )
    _place(image, grid)
    return image


def _place(image: Any, grid: Grid) -> None:
    image.SetOrigin(grid.world_from_index[:3, 3].tolist())
    image.SetSpacing(grid.spacing.tolist())
    image.SetDirection(grid.direction.ravel().tolist())
