"""The two doors for images: read_image and write_image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from retreg.errors import FileError, TooLargeError
from retreg.files.dicom import read_dicom_file, read_dicom_series
from retreg.files.doors import existing_file, reading
from retreg.files.formats import Format, recognised
from retreg.files.freesurfer import read_mgh
from retreg.files.limits import (
    MAX_TOGETHER_BYTES,
    MAX_VOLUME_BYTES,
    decoded_at_most,
    gigabytes,
)
from retreg.files.names import usable_name
from retreg.files.nifti import NiftiGeometry, contradiction, read_nifti_header
from retreg.files.pictures import read_picture, write_png
from retreg.files.volumes import VOLUME_SUFFIXES, read_volume, write_volume
from retreg.image import Image
from retreg.masks import counting


def read_image(
    path: str | Path, frame: int | None = None, nifti_geometry: NiftiGeometry = "itk"
) -> Image:
    """Read a picture, a volume, a DICOM file, or a folder that holds one DICOM series.

    Pictures (PNG, JPEG, TIFF, BMP): EXIF orientation applied, resolution ignored, transparency
    over black; pixel (x, y) is the point (x, y, 0). Volumes (NRRD, NIfTI, MHA, MGZ, DICOM)
    keep their own world, LPS mm as ITK defines it; voxel values are rescaled as the header says.
    frame: the number, from 1, of the picture to take from a DICOM file that holds several.
    nifti_geometry: "sform" or "qform" to place a NIfTI file by that one instead of by ITK's rule.
    Raises FileError or GeometryError, with one sentence, when the file cannot be used.
    """
    path = usable_name(path)
    if path.is_dir():
        with reading(path.name, "a DICOM series"):
            return read_dicom_series(path, frame)
    path = existing_file(path)
    with reading(path.name, "an image"):
        found = recognised(path)
    if frame not in (None, 1) and found is not Format.DICOM:
        raise FileError(
            f"{path.name} is no DICOM file of several frames, so it has no frame {frame}; leave "
            "the frame out, or name that of the other file alone (as with --moving-frame)."
        )
    with reading(path.name, found.value):
        if found is Format.PICTURE:
            return read_picture(path)
        if found is Format.DICOM:
            return read_dicom_file(path, frame)
        if found is Format.MGH:
            return read_mgh(path)
        volume = read_volume(path, found, nifti_geometry)
        return _noted(path, volume) if found is Format.NIFTI else volume


def read_images(
    inputs: Sequence[tuple[str | Path, int | None]], nifti_geometry: NiftiGeometry = "itk"
) -> list[Image]:
    """Read images that are worked on at once, of each the path and the frame; see read_image.

    Raises TooLargeError when they have more than MAX_TOGETHER_BYTES of voxels together.
    """
    images: list[Image] = []
    for path, frame in inputs:
        left = MAX_TOGETHER_BYTES - sum(image.array.nbytes for image in images)
        try:
            with decoded_at_most(left):
                images.append(read_image(path, frame, nifti_geometry))
        except TooLargeError:
            if left >= MAX_VOLUME_BYTES:
                raise
            raise TooLargeError(
                f"{Path(path).name} is too large beside what was read before it; images that are "
                f"worked on at once may have {gigabytes(MAX_TOGETHER_BYTES)} of voxels together, "
                "so crop them or make them coarser."
            ) from None
    return images


def read_pair(
    fixed: tuple[str | Path, int | None],
    moving: tuple[str | Path, int | None],
    masks: Mapping[str, Path],
    nifti_geometry: NiftiGeometry = "itk",
) -> tuple[Image, Image]:
    """The fixed and the moving image, each by its path and frame, as of read_images.

    masks: files by role, "fixed" or "moving", of the images that have one (see retreg.masks).
    Raises InputError for a mask that does not fit.
    """
    read = read_images((fixed, moving), nifti_geometry)
    images = dict(zip(("fixed", "moving"), read, strict=True))
    for role, mask in masks.items():
        images[role] = counting(images[role], read_image(mask, None, nifti_geometry), role)
    return images["fixed"], images["moving"]


def _noted(path: Path, image: Image) -> Image:
    """The image with a note where its NIfTI header holds geometries that contradict each other."""
    note = contradiction(read_nifti_header(path), image.grid)
    if not note:
        return image
    return replace(image, about=replace(image.about, notes=(*image.about.notes, note)))


def write_image(path: str | Path, image: Image) -> None:
    """Write .nrrd, .nii.gz, .nii or .mha with the exact geometry, or .png for a picture.

    A file of that name is replaced once the new one is complete. PNG takes 8- or 16-bit
    integers and keeps no geometry; NIfTI stores the geometry as 32-bit numbers.
    Raises FileError when the image cannot be stored that way or the file cannot be written.
    """
    path = usable_name(path)
    name = path.name.lower()
    if name.endswith(".png"):
        write_png(path, image)
    elif name.endswith(VOLUME_SUFFIXES):
        write_volume(path, image)
    else:
        raise FileError(
            f"{path.name} has an unknown ending; .nrrd, .nii.gz, .nii, .mha or .png was expected."
        )
