"""The two doors for transforms: read_transform for every program's, write_transform for ITK's."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from retreg.errors import FileError
from retreg.files.dicom_registration import read_registration
from retreg.files.doors import existing_file, reading
from retreg.files.elastix import is_elastix, read_elastix
from retreg.files.foreign_fields import displacements_of_mapping, is_mapping
from retreg.files.formats import Format, recognised
from retreg.files.fsl import is_flirt, is_fsl_field, read_flirt, read_fsl_field
from retreg.files.headers import checked_header
from retreg.files.itk_transforms import from_field, is_itk, read_itk_transform, write_transform
from retreg.files.limits import MAX_TRANSFORM_BYTES
from retreg.files.lta import is_lta, read_lta
from retreg.files.names import usable_name
from retreg.files.nifti import read_nifti_header
from retreg.files.volumes import read_checked
from retreg.geometry import Grid
from retreg.transforms import Transform

__all__ = ["RESULT_TRANSFORM", "read_transform", "write_transform"]
RESULT_TRANSFORM = "transform.h5"
_START_BYTES = 4096


def read_transform(
    path: str | Path, fixed: Grid | None = None, moving: Grid | None = None
) -> Transform:
    """Read a transform from fixed to moving points, LPS mm, by its content.

    ITK and ANTs (.h5, .tfm, .txt, .mat): linear kinds and composites of them become an Affine,
    B-splines a BSpline, thin-plate splines a ThinPlateSpline, other composites a Chain in the order
    of application, or their only part. Displacement fields of ITK and ANTs (.nii.gz, .nrrd, .mha),
    also in 2-D, and deformations of SPM become a DisplacementField. FreeSurfer's .lta, elastix's
    TransformParameters, and of FSL the matrix of flirt and the fields of fnirt are read too; these
    two mean nothing without fixed and moving, the grids of the images they were made of.
    DICOM registrations of two images are read as well (see retreg.files.dicom_registration).
    A folder of results stands for the transform in it.
    Raises FileError for other kinds and for damaged files.
    """
    path = usable_name(path)
    if path.is_dir():
        path = _in_results(path)
    path = existing_file(path, MAX_TRANSFORM_BYTES)
    with reading(path.name, "a transform"):
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
        if is_itk(start):
            return read_itk_transform(path, start)
        if is_elastix(start):
            return read_elastix(path)
        if is_lta(start):
            return read_lta(path)
        if is_flirt(start):
            return read_flirt(path, fixed, moving)
        return _read_field(path, fixed, moving)


def _recognised_field(path: Path) -> Format:
    """The format of a field, or of a DICOM registration. Raises FileError for all other files."""
    with suppress(FileError):
        if (found := recognised(path)) not in (Format.PICTURE, Format.MGH):
            return found
    raise FileError(
        f"{path.name} holds no transform; one of ITK or ANTs (.h5, .tfm, .txt, .mat), of elastix, "
        "FreeSurfer or FSL, a displacement field (.nii.gz, .nrrd, .mha) or a DICOM registration "
        "was expected."
    )


def _in_results(folder: Path) -> Path:
    if not (folder / RESULT_TRANSFORM).is_file():
        raise FileError(
            f"In the folder {folder.name} there is no {RESULT_TRANSFORM}, so it is no folder of "
            "results; name a file with a transform."
        )
    return folder / RESULT_TRANSFORM


def _read_field(path: Path, fixed: Grid | None, moving: Grid | None) -> Transform:
    found = _recognised_field(path)
    if found is Format.DICOM:
        return read_registration(path).transform
    if found is not Format.NIFTI:
        return from_field(read_checked(path, found), path.name)
    header = read_nifti_header(path)
    if is_fsl_field(header):
        checked_header(path, found)
        return read_fsl_field(path, header, fixed, moving)
    absolute = is_mapping(path.name, header)
    field = from_field(read_checked(path, found), path.name)
    return displacements_of_mapping(field) if absolute else field
