"""Images that follow each other on one grid: 4-D files, and sequences of Slicer (.seq.nrrd)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from retreg.errors import FileError
from retreg.files.doors import existing_file, reading, replacing
from retreg.files.formats import Format, recognised
from retreg.files.headers import checked_header
from retreg.files.images import read_image, write_image
from retreg.files.names import usable_name
from retreg.files.nifti import NiftiGeometry, chosen_form, read_nifti_header, readable
from retreg.files.volumes import VOLUME_SUFFIXES, grid_of, quiet_itk, to_itk
from retreg.geometry import Grid
from retreg.image import MAX_CHANNELS, Image

_NRRD_END = b"\n\n"


@dataclass(frozen=True, eq=False)
class Sequence:
    """Images of one grid. step: between them along the fourth axis, in the unit of the file.

    as_list: whether they stood as a list in the voxels, as in sequences of Slicer. texts: what such
    a file says besides, by name.
    """

    frames: tuple[Image, ...]
    step: float = 1.0
    as_list: bool = False
    texts: tuple[tuple[str, str], ...] = ()


def read_sequence(
    path: str | Path, frame: int | None = None, nifti_geometry: NiftiGeometry = "itk"
) -> Sequence:
    """Every image in a file: one, as by retreg.files.read_image, or all of a 4-D file or sequence.

    Raises FileError or GeometryError.
    """
    path = usable_name(path)
    count, components, is_list = _shape(path)
    if count == 1 and components <= MAX_CHANNELS and not is_list:
        return Sequence((read_image(path, frame, nifti_geometry),))
    if count > 1 and components > MAX_CHANNELS:
        raise FileError(
            f"{path.name} has {components} values per voxel at each time; at most {MAX_CHANNELS} "
            "are accepted."
        )
    with reading(path.name, "a sequence of images"):
        image = _read(path)
        grid = _grid(path, image, nifti_geometry)
        if count > 1:
            return Sequence(_of_fourth_axis(image, grid, components), image.GetSpacing()[3])
        keys = [key for key in image.GetMetaDataKeys() if not key.startswith(("NRRD_", "ITK_"))]
        texts = tuple((key, image.GetMetaData(key)) for key in keys)
        return Sequence(_of_components(image, grid), as_list=True, texts=texts)


def write_sequence(path: str | Path, sequence: Sequence) -> None:
    """Write one image as retreg.files.write_image does, several as they came. Raises FileError."""
    import SimpleITK as sitk

    path = usable_name(path)
    frames = sequence.frames
    if len(frames) == 1 and not sequence.as_list:
        write_image(path, frames[0])
        return
    suffix = next((s for s in VOLUME_SUFFIXES if path.name.lower().endswith(s)), None)
    if suffix is None or (sequence.as_list and suffix != ".nrrd"):
        expected = "seq.nrrd" if sequence.as_list else "nii.gz, .nrrd or .mha"
        raise FileError(f"{path.name} cannot hold {len(frames)} images; .{expected} was expected.")
    if sequence.as_list:
        image = to_itk(np.concatenate([frame.array for frame in frames]), frames[0].grid)
        for key, text in sequence.texts:
            image.SetMetaData(key, text)
    else:
        image = sitk.JoinSeries([to_itk(frame.array, frame.grid) for frame in frames])
        image.SetSpacing((*image.GetSpacing()[:3], sequence.step))
    with replacing(path, suffix) as temporary, quiet_itk():
        sitk.WriteImage(image, str(temporary), useCompression=True)
        if sequence.as_list:
            _call_it_a_list(temporary)


def _shape(path: Path) -> tuple[int, int, bool]:
    """How many images along the fourth axis of a file, how many values each voxel has, and whether
    these are a list of images, as Slicer writes them."""
    kinds = (Format.NIFTI, Format.NRRD, Format.META)
    if path.is_dir() or recognised(existing_file(path)) not in kinds:
        return 1, 1, False
    import SimpleITK as sitk

    with reading(path.name, "an image"), quiet_itk():
        found = recognised(path)
        promise = checked_header(path, found)
        if found is Format.NIFTI:  # ITK refuses some headers that read_image takes
            return prod(promise.sizes[3:4]), prod(promise.sizes[4:]), False
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        kinds_of_axes = [key for key in reader.GetMetaDataKeys() if key.startswith("NRRD_kinds")]
        is_list = "list" in {reader.GetMetaData(key) for key in kinds_of_axes}
        return prod(reader.GetSize()[3:]), reader.GetNumberOfComponents(), is_list


def _read(path: Path) -> Any:
    import SimpleITK as sitk

    with quiet_itk():
        if recognised(path) is not Format.NIFTI:
            return sitk.ReadImage(str(path))
        promise = checked_header(path, Format.NIFTI)
        with readable(path, read_nifti_header(path), promise) as file:
            return sitk.ReadImage(str(file))


def _grid(path: Path, image: Any, geometry: NiftiGeometry) -> Grid:
    """Where the first three axes lie."""
    size = image.GetSize()[:3]
    form = None
    if recognised(path) is Format.NIFTI:
        form = chosen_form(path.name, read_nifti_header(path), geometry)
    if form is not None:
        return Grid(size, form)
    if image.GetDimension() == 3:
        return grid_of(image)
    direction = np.array(image.GetDirection()).reshape(4, 4)[:3, :3]
    matrix = np.eye(4)
    matrix[:3, :3] = direction * np.array(image.GetSpacing()[:3])
    matrix[:3, 3] = image.GetOrigin()[:3]
    return Grid(size, matrix)


def _of_fourth_axis(image: Any, grid: Grid, components: int) -> tuple[Image, ...]:
    import SimpleITK as sitk

    voxels = sitk.GetArrayFromImage(image)  # (time, k, j, i[, component])
    if components == 1:
        return tuple(Image(volume[None], grid) for volume in voxels)
    return tuple(Image(np.moveaxis(volume, -1, 0), grid) for volume in voxels)


def _of_components(image: Any, grid: Grid) -> tuple[Image, ...]:
    import SimpleITK as sitk

    voxels = np.moveaxis(sitk.GetArrayFromImage(image), -1, 0)
    return tuple(Image(np.ascontiguousarray(volume)[None], grid) for volume in voxels)


def _call_it_a_list(path: Path) -> None:
    """ITK writes the first axis of NRRD as that of a vector; Slicer wants a list for a sequence."""
    head, voxels = path.read_bytes().split(_NRRD_END, 1)
    path.write_bytes(head.replace(b"kinds: vector", b"kinds: list", 1) + _NRRD_END + voxels)
