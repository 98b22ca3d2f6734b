"""Transforms of other programs: read as those programs mean them, or refused by name."""

from __future__ import annotations

import json
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nitransforms.io.itk import ITKCompositeH5
from scipy.io import loadmat, savemat

from retreg.errors import FileError
from retreg.files import read_markups, read_transform, write_transform
from retreg.geometry import Grid
from retreg.transforms import Affine, DisplacementField

LPS = np.diag([-1.0, -1, 1, 1])
POINTS = np.array([[4.0, 3, 0], [1, 2, 0], [2.5, 1.5, 0]])


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "nrrd", "mha"])
@pytest.mark.parametrize("dtype", [sitk.sitkVectorFloat32, sitk.sitkVectorFloat64])
@pytest.mark.parametrize("vector", [(2, -0.75), (-1.5, 0), (0, 3)])
def test_a_field_of_two_components_is_read_from_every_format(tmp_path, vector, dtype, ending):
    field = sitk.GetImageFromArray(np.full((9, 11, 2), vector, np.float64), isVector=True)
    field.SetSpacing((0.5, 0.75))
    field.SetOrigin((0.25, -1))
    path = tmp_path / f"0Warp.{ending}"
    sitk.WriteImage(sitk.Cast(field, dtype), str(path))
    moved = read_transform(path)(POINTS)
    np.testing.assert_allclose(moved, POINTS + [*vector, 0], atol=1e-6)


def test_a_varying_field_of_two_components_moves_points_as_itk_says(tmp_path):
    vectors = np.random.default_rng(1).normal(size=(9, 11, 2))
    field = sitk.GetImageFromArray(vectors, isVector=True)
    sitk.WriteImage(field, str(tmp_path / "a.nii.gz"))
    oracle = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    expected = [oracle.TransformPoint(point[:2].tolist()) for point in POINTS]
    np.testing.assert_allclose(read_transform(tmp_path / "a.nii.gz")(POINTS)[:, :2], expected,
                               atol=1e-6)  # fmt: skip


@pytest.mark.parametrize("slices", [2, 5])
def test_two_components_in_a_volume_are_no_field(tmp_path, slices):
    image = sitk.GetImageFromArray(np.zeros((slices, 5, 6, 2), np.float32), isVector=True)
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    with pytest.raises(FileError, match="not a displacement field"):
        read_transform(tmp_path / "a.nii.gz")


def an_itk_transform(kind):
    if kind == "affine":
        transform = sitk.AffineTransform(3)
        transform.SetMatrix([1.1, 0.1, 0, -0.2, 0.9, 0.05, 0, 0, 1.2])
        transform.SetTranslation((3, -4, 5))
    elif kind == "planar":
        transform = sitk.AffineTransform(2)
        transform.SetMatrix([0.9, 0.3, -0.3, 1.0])
        transform.SetTranslation((3, -4))
    else:
        transform = sitk.Euler3DTransform((0, 0, 0), 0.1, -0.2, 0.3, (1, 2, 3))
    transform.SetCenter((10, 20, 30)[: transform.GetDimension()])
    return transform


@pytest.mark.parametrize("kind", ["affine", "planar", "rigid"])
def test_a_transform_of_ants_is_read(tmp_path, kind):
    transform = an_itk_transform(kind)
    path = tmp_path / "0GenericAffine.mat"
    sitk.WriteTransform(transform, str(path))
    dimension = transform.GetDimension()
    expected = [transform.TransformPoint(p[:dimension].tolist()) for p in POINTS]
    np.testing.assert_allclose(read_transform(path)(POINTS)[:, :dimension], expected, atol=1e-9)


def test_the_general_name_that_ants_writes_is_known(tmp_path):
    transform = an_itk_transform("affine")
    sitk.WriteTransform(transform, str(tmp_path / "a.mat"))
    content = {k: v for k, v in loadmat(tmp_path / "a.mat").items() if not k.startswith("__")}
    content["MatrixOffsetTransformBase_double_3_3"] = content.pop("AffineTransform_double_3_3")
    savemat(tmp_path / "b.mat", dict(reversed(content.items())), format="4")
    expected = [transform.TransformPoint(p.tolist()) for p in POINTS]
    np.testing.assert_allclose(read_transform(tmp_path / "b.mat")(POINTS), expected, atol=1e-9)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.97])
def test_a_cut_or_renamed_transform_of_ants_is_refused(tmp_path, share):
    sitk.WriteTransform(an_itk_transform("affine"), str(tmp_path / "a.mat"))
    content = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "cut.mat").write_bytes(content[: int(share * len(content))])
    with pytest.raises(FileError, match="cut"):
        read_transform(tmp_path / "cut.mat")
    (tmp_path / "a.dat").write_bytes(content)
    with pytest.raises(FileError, match=r"rename it to \.mat"):
        read_transform(tmp_path / "a.dat")


def test_matlab_files_of_other_content_are_refused(tmp_path):
    savemat(tmp_path / "a.mat", {"M": np.eye(4)}, format="4")
    savemat(tmp_path / "b.mat", {"M": np.eye(4)})
    for name in ("a.mat", "b.mat"):
        with pytest.raises(FileError, match=name):
            read_transform(tmp_path / name)


def an_spm_file(path, ras_of_ras, affine, shape=(6, 7, 5)):
    """y_*.nii as SPM writes it: at each voxel the position to which its centre goes, RAS mm."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    centres = index @ affine[:3, :3].T + affine[:3, 3]
    positions = centres @ ras_of_ras[:3, :3].T + ras_of_ras[:3, 3]
    image = nibabel.Nifti1Image(positions[:, :, :, None].astype(np.float32), affine)
    image.header.set_intent("vector", name="Mapping")
    image.to_filename(path)
    return path


@pytest.mark.parametrize("affine", [
    np.array([[-2.0, 0, 0, 8], [0, 2, 0, -6], [0, 0, 2, -4], [0, 0, 0, 1]]),
    np.array([[1.2, -0.9, 0, 1], [0.9, 1.2, 0, 2], [0, 0, 3, 3], [0, 0, 0, 1]]),
])  # fmt: skip
@pytest.mark.parametrize("shift", [(0, 0, 0), (1, -2, 3)])
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_a_deformation_of_spm_moves_points_as_spm_means_it(tmp_path, affine, shift, ending):
    ras_of_ras = np.array([[1.1, 0.1, 0, 0], [0, 0.9, 0, 0], [0, -0.1, 1, 0], [0, 0, 0, 1.0]])
    ras_of_ras[:3, 3] = shift
    path = an_spm_file(tmp_path / f"y_t1.{ending}", ras_of_ras, affine)
    found = read_transform(path)
    assert isinstance(found, DisplacementField)
    points = found.grid.world(np.array([[1.0, 2, 3], [2.5, 3.25, 1.5], [4, 4, 2]]))
    expected = Affine(LPS @ ras_of_ras @ LPS)(points)
    np.testing.assert_allclose(found(points), expected, atol=1e-4)


def test_the_identity_of_spm_is_the_identity(tmp_path):
    affine = np.diag([-2.0, 2, 2, 1])
    found = read_transform(an_spm_file(tmp_path / "y_a.nii", np.eye(4), affine))
    point = found.grid.world(np.array([[2.0, 3, 4]]))
    np.testing.assert_allclose(found(point), point, atol=1e-5)


@pytest.mark.parametrize(("code", "name", "tool"), [(2006, "", "FSL"), (2009, "", "FSL"),
                                                    (1007, "NREG_TRANS", "NiftyReg")])  # fmt: skip
def test_fields_of_other_programs_are_refused_by_name(tmp_path, code, name, tool):
    path = an_spm_file(tmp_path / "warp.nii", np.eye(4), np.diag([2.0, 2, 2, 1]))
    content = bytearray(path.read_bytes())
    struct.pack_into("<h", content, 68, code)
    content[328:344] = name.encode().ljust(16, b"\0")
    path.write_bytes(content)
    with pytest.raises(FileError, match=f"a (field|transform) of {tool}"):
        read_transform(path)


def a_field(size=(12, 10, 8)):
    matrix = np.diag([2.0, 2, 3, 1])
    matrix[:3, 3] = (-10, 5, 20)
    vectors = np.random.default_rng(4).normal(size=(3, *size[::-1]))
    return DisplacementField(vectors, Grid(size, matrix))


@pytest.mark.parametrize("kind", ["affine", "field"])
def test_an_h5_file_holds_a_composite_that_is_read_back_as_its_only_part(tmp_path, kind):
    transform = Affine(np.diag([1.1, 0.9, 1, 1])) if kind == "affine" else a_field()
    write_transform(tmp_path / "a.h5", transform, a_field().grid)
    stored = sitk.ReadTransform(str(tmp_path / "a.h5"))
    assert stored.GetName() == "CompositeTransform"
    read = read_transform(tmp_path / "a.h5")
    assert isinstance(read, type(transform))
    points = a_field().grid.world(np.array([[1.0, 2, 3], [5.5, 4, 2]]))
    expected = [stored.TransformPoint(point.tolist()) for point in points]
    np.testing.assert_allclose(read(points), expected, atol=1e-9)
    np.testing.assert_allclose(read(points), transform(points), atol=0.01)


@pytest.mark.parametrize("kind", ["affine", "field"])
def test_nitransforms_reads_what_is_written(tmp_path, kind):
    transform = Affine(np.diag([1.1, 0.9, 1, 1])) if kind == "affine" else a_field()
    write_transform(tmp_path / "a.h5", transform, a_field().grid)
    (part,) = ITKCompositeH5.from_filename(tmp_path / "a.h5")
    if kind == "affine":
        ras_of_ras = LPS @ transform.moving_from_fixed @ LPS
        np.testing.assert_allclose(part.to_ras(), ras_of_ras, atol=1e-6)
    else:  # what is written is continued by a voxel on every side
        vectors = part.get_fdata().squeeze()[1:-1, 1:-1, 1:-1] * [-1, -1, 1]
        np.testing.assert_allclose(vectors.T, transform.vectors_mm, atol=1e-6)
        first = LPS @ part.affine @ [1, 1, 1, 1]
        np.testing.assert_allclose(first, transform.grid.world_from_index[:, 3], atol=1e-6)


@pytest.mark.parametrize("system", ["IJK", "2"])
@pytest.mark.parametrize("ending", ["mrk.json", "fcsv"])
def test_points_in_voxels_are_told(tmp_path, system, ending):
    path = tmp_path / f"F.{ending}"
    if ending == "fcsv":
        path.write_text(f"# CoordinateSystem = {system}\n# columns = id,x,y,z\na,1,2,3\n")
    else:
        markup = {"coordinateSystem": "IJK", "controlPoints": [{"position": [1, 2, 3]}]}
        path.write_text(json.dumps({"markups": [markup]}))
    with pytest.raises(FileError, match="in IJK, the voxels of an image"):
        read_markups(path)


@pytest.mark.parametrize("system", ["XYZ", "7", None, 3])
def test_points_in_an_unknown_system_are_told(tmp_path, system):
    markup = {"coordinateSystem": system, "controlPoints": [{"position": [1, 2, 3]}]}
    (tmp_path / "F.mrk.json").write_text(json.dumps({"markups": [markup]}))
    with pytest.raises(FileError, match="unknown coordinate system"):
        read_markups(tmp_path / "F.mrk.json")
