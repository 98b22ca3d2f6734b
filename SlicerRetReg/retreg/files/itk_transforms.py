"""ITK transform files, in and out: always 3-D, LPS mm, fixed points to moving points."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from retreg.bspline import BSpline
from retreg.composed_field import composed_field
from retreg.errors import FileError
from retreg.files.doors import replacing
from retreg.files.kernel_splines import hdf5_entries, only_spline, text_entries
from retreg.files.names import usable_name
from retreg.files.volumes import channels_first, grid_of, quiet_itk, to_itk
from retreg.geometry import Grid
from retreg.transforms import Affine, Chain, DisplacementField, Transform, as_field

_TEXT_START = b"#Insight Transform File"
_HDF5_START = b"\x89HDF\r\n\x1a\n"
_MATLAB_START = re.compile(rb".{20}[A-Z]\w*Transform\w*_(double|float)_[23]_[23]\0", re.DOTALL)
_LINEAR_ONLY = (".tfm", ".mat")
_LINEAR_SUFFIXES = (".h5", *_LINEAR_ONLY)
_SUFFIXES = (".h5", ".tfm", ".mat", ".nrrd", ".nii.gz", ".mha")


def write_transform(path: str | Path, transform: Transform, fixed_grid: Grid) -> None:
    """Write .h5, .tfm or .mat (affine only), or a displacement field .nrrd, .nii.gz or .mha.

    An Affine is stored exactly, in .mat as by ANTs, and so is a field with affines after it;
    everything else as the displacement field that equals it on fixed_grid within 0.01 mm
    (retreg.transforms.as_field). ITK moves no point beyond the field, while Slicer and retreg
    continue the displacement of its edge. A NIfTI field is stored as ANTs and SimpleITK do, with
    LPS vectors of intent 1007: Slicer reads it right, with a warning. An .h5 file holds a
    composite, since nitransforms reads nothing else.
    Raises FileError when the ending is unknown or the file cannot be written.
    """
    import SimpleITK as sitk

    path = usable_name(path)
    suffix = next((s for s in _SUFFIXES if path.name.lower().endswith(s)), "")
    if isinstance(transform, Affine) and suffix in _LINEAR_SUFFIXES:
        stored = _itk_affine(transform)
    elif suffix and suffix not in _LINEAR_ONLY:
        field = _stored_field(transform, fixed_grid)
        if suffix == ".nii.gz" and field.grid.is_plane:
            field = _doubled(field)
        stored = to_itk(field.vectors_mm, field.grid)
    else:
        raise FileError(
            f"{path.name} has an ending that this transform cannot be written to; .h5, .nrrd or "
            ".nii.gz was expected, or .tfm or .mat for an affine transform."
        )
    with replacing(path, suffix) as temporary, quiet_itk():
        if isinstance(stored, sitk.Image) and suffix == ".h5":
            stored = sitk.DisplacementFieldTransform(stored)
        if suffix == ".h5":
            stored = sitk.CompositeTransform([stored])
        if isinstance(stored, sitk.Image):
            sitk.WriteImage(stored, str(temporary), useCompression=True)
        else:
            sitk.WriteTransform(stored, str(temporary))


def is_itk(start: bytes) -> bool:
    """Whether a file that starts so is one of ITK's transforms, as text, HDF5 or by ANTs."""
    return start.startswith((_TEXT_START, _HDF5_START)) or bool(_MATLAB_START.match(start))


def read_itk_transform(path: Path, start: bytes) -> Transform:
    """What a file of ITK holds: see retreg.files.transforms.read_transform. start: its first bytes.

    Raises FileError.
    """
    import SimpleITK as sitk

    spline = None
    if start.startswith(_TEXT_START):
        _refuse_cut_text(path)
        spline = only_spline(text_entries(path), path.name)
    elif start.startswith(_HDF5_START):
        spline = only_spline(hdf5_entries(path), path.name)
    else:
        _refuse_other_matlab(path)
    if spline is not None:
        return spline
    with quiet_itk():
        return _from_itk(sitk.ReadTransform(str(path)), path.name)


def _stored_field(transform: Transform, fixed_grid: Grid) -> DisplacementField:
    """One field for the transform; ITK wants the axes of its lattice at right angles."""
    exact = composed_field(transform, fixed_grid)
    if exact is not None:
        direction = exact.grid.direction
        if np.allclose(direction.T @ direction, np.eye(3), atol=1e-6):
            return exact
    return as_field(transform, fixed_grid)


def _doubled(field: DisplacementField) -> DisplacementField:
    """The same slice twice: readers of NIfTI drop a third axis of one voxel, and its place."""
    i, j, _ = field.grid.size
    grid = Grid((i, j, 2), field.grid.world_from_index)
    return DisplacementField(field.vectors_mm.repeat(2, axis=1), grid)


def _refuse_cut_text(path: Path) -> None:
    """ITK reads a transform without its parameters as the identity."""
    lines = path.read_text(encoding="latin-1").splitlines(keepends=True)
    kinds = [line for line in lines if line.startswith("Transform: ")]
    expected = len([kind for kind in kinds if not kind.startswith("Transform: Composite")])
    found = [len([ln for ln in lines if ln.startswith(key)]) for key in ("Param", "FixedParam")]
    if found != [expected, expected] or not lines[-1].endswith("\n"):
        raise FileError(f"{path.name} is cut off within a transform; copy or export it again.")


def _refuse_other_matlab(path: Path) -> None:
    """ITK goes by the ending; scipy notices files that are cut off, by raising ValueError."""
    from scipy.io import loadmat

    if not path.name.lower().endswith(".mat"):
        raise FileError(f"{path.name} is a transform of ANTs by its content; rename it to .mat.")
    loadmat(path)


def _itk_affine(transform: Affine) -> Any:
    import SimpleITK as sitk

    stored = sitk.AffineTransform(3)
    stored.SetMatrix(transform.moving_from_fixed[:3, :3].ravel().tolist())
    stored.SetTranslation(transform.moving_from_fixed[:3, 3].tolist())
    return stored


def _from_itk(transform: Any, name: str) -> Transform:
    import SimpleITK as sitk

    if transform.IsLinear():  # also what ANTs writes, which ITK wraps in a composite
        return from_linear(transform)
    if transform.GetTransformEnum() == sitk.sitkComposite:
        composite = sitk.CompositeTransform(transform)
        parts = [composite.GetNthTransform(n) for n in range(composite.GetNumberOfTransforms())]
        chain = tuple(_from_itk(part, name) for part in reversed(parts))  # last one first
        return chain[0] if len(chain) == 1 else Chain(chain)
    if transform.GetTransformEnum() == sitk.sitkDisplacementField:
        return from_field(sitk.DisplacementFieldTransform(transform).GetDisplacementField(), name)
    if transform.GetTransformEnum() == sitk.sitkBSplineTransform:
        return _from_bspline(sitk.BSplineTransform(transform))
    raise FileError(
        f"{name} holds a {transform.GetName()}; linear transforms, B-splines, thin-plate splines, "
        "displacement fields and composites of them are supported, so convert it to a displacement "
        "field."
    )


def _from_bspline(transform: Any) -> BSpline:
    images = transform.GetCoefficientImages()
    coefficients = np.zeros((3, *grid_of(images[0]).shape))
    for axis, image in enumerate(images):
        coefficients[axis] = channels_first(image)[0]
    return BSpline(coefficients, grid_of(images[0]), transform.GetOrder())


def from_linear(transform: Any) -> Affine:
    """Found by its effect on the unit vectors, which spares a case for every kind and centre."""
    dimension = transform.GetDimension()
    origin = np.array(transform.TransformPoint([0.0] * dimension))
    moved = [transform.TransformPoint(unit.tolist()) for unit in np.eye(dimension)]
    matrix = np.eye(4)
    matrix[:dimension, :dimension] = (np.array(moved) - origin).T
    matrix[:dimension, 3] = origin
    return Affine(matrix)


def from_field(field: Any, name: str) -> DisplacementField:
    """The field of a SimpleITK image of vectors, in 2-D too. Raises FileError for other images."""
    dimension = field.GetDimension()
    vectors = channels_first(field)
    in_plane = len(vectors) == 2 and vectors.shape[1] == 1
    if len(vectors) not in (dimension, 3) and not in_plane:
        raise FileError(f"{name} is an image, not a displacement field; 3 values per voxel needed.")
    padded = np.zeros((3, *vectors.shape[1:]))
    padded[: len(vectors)] = vectors
    return DisplacementField(padded, grid_of(field))
