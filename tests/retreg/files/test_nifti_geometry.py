"""Where a NIfTI file lies: as ITK places it, as its sform says, as was asked for."""

from __future__ import annotations

import gzip
import itertools
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from retreg.errors import FileError, GeometryError, OptionError
from retreg.files import read_image
from retreg.image import Image

LPS_FROM_RAS = np.diag([-1.0, -1, 1, 1])
VOXELS = np.arange(120, dtype=np.int16).reshape(6, 5, 4)
SPACING = np.array([2.0, 3, 4])


def note_of(image: Image) -> str:
    """What was noticed while the file was read."""
    return " ".join(image.about.notes)


def turned(degrees, axis, spacing=SPACING, offset=(10, 20, 30)):
    """(4, 4) RAS, turned about one axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = (n for n in range(3) if n != axis)
    matrix = np.eye(4)
    matrix[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    matrix[:3, :3] *= spacing
    matrix[:3, 3] = offset
    return matrix


def sheared(by, spacing=SPACING):
    matrix = turned(30, 2, spacing)
    matrix[0, 1] += by
    return matrix


def a_file(path, sform, qform, codes=(1, 1), pixdim=SPACING, kind=nibabel.Nifti1Image,
           voxels=VOXELS):  # fmt: skip
    """Written with the codes (of sform, of qform); pixdim is set last, whatever the forms say."""
    image = kind(voxels, np.eye(4))
    image.header["qform_code"], image.header["sform_code"] = 0, 0
    if qform is not None:
        image.header.set_qform(qform, codes[1])
    if sform is not None:
        image.header.set_sform(sform, codes[0])
    image.header["pixdim"][1:4] = pixdim
    image.affine[:] = np.eye(4)
    with nibabel.openers.ImageOpener(path, "wb") as file:  # image.to_filename would repair it
        content = image.header.copy()
        content["vox_offset"], content["magic"] = {
            nibabel.Nifti1Image: (352, b"n+1"),
            nibabel.Nifti2Image: (544, b"n+2"),
        }[kind]
        file.write(content.binaryblock + b"\0" * 4 + voxels.tobytes(order="F"))
    return path


def itk_matrix(path):
    image = sitk.ReadImage(str(path))
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return matrix


@pytest.mark.parametrize(
    ("codes", "qform", "pixdim"),
    [
        *itertools.product([(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (4, 2)],
                           [turned(20, 0, offset=(1, 2, 3))], [SPACING, (1, 1, 1)]),
        ((0, 1), turned(20, 0), SPACING),
        ((0, 2), turned(20, 0) @ np.diag([1, 1, -1, 1]), SPACING),
        ((0, 0), turned(20, 0), SPACING),
    ],
)  # fmt: skip
def test_conflicting_geometries_are_decided_as_itk_does(tmp_path, codes, qform, pixdim):
    path = a_file(tmp_path / "a.nii", turned(30, 2), qform, codes, pixdim)
    read = read_image(path)
    np.testing.assert_allclose(read.grid.world_from_index, itk_matrix(path), atol=1e-6)
    np.testing.assert_array_equal(read.array[0].T, VOXELS)


def test_a_sheared_sform_beside_a_qform_is_decided_as_itk_does(tmp_path):
    path = a_file(tmp_path / "a.nii", sheared(0.5), turned(20, 0), (1, 1))
    np.testing.assert_allclose(
        read_image(path).grid.world_from_index, itk_matrix(path), atol=1e-6
    )
    assert "the sform puts it up to" in note_of(read_image(path))


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("code", [1, 2, 4])
@pytest.mark.parametrize("shear", [0.003, 0.4, -2])
@pytest.mark.parametrize("slices", [1, 4])
def test_a_sheared_sform_is_kept_exactly(tmp_path, shear, code, kind, ending, slices):
    voxels = VOXELS[:, :, :slices]
    path = tmp_path / f"a.{ending}"
    a_file(path, sheared(shear), None, (code, 0), kind=kind, voxels=voxels)
    read = read_image(path)
    expected = LPS_FROM_RAS @ nibabel.load(path).affine
    np.testing.assert_allclose(read.grid.world_from_index, expected, atol=1e-5)
    np.testing.assert_array_equal(read.array[0].T, voxels)
    assert note_of(read) == ""


@pytest.mark.parametrize("geometry", ["sform", "qform"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (4, 2)])
@pytest.mark.parametrize("slices", [1, 4])
def test_a_chosen_form_is_taken_as_nibabel_reads_it(tmp_path, geometry, kind, codes, slices):
    mirror = np.diag([1, 1, -1, 1])
    path = a_file(tmp_path / "a.nii", sheared(0.4, (2.5, 3, 5)), turned(20, 0) @ mirror, codes,
                  kind=kind, voxels=VOXELS[:, :, :slices])  # fmt: skip
    header = nibabel.load(path).header
    form = header.get_sform() if geometry == "sform" else header.get_qform()
    read = read_image(path, nifti_geometry=geometry)
    np.testing.assert_allclose(read.grid.world_from_index, LPS_FROM_RAS @ form, atol=1e-5)
    np.testing.assert_array_equal(read.array[0].T, VOXELS[:, :, :slices])


@pytest.mark.parametrize(("geometry", "codes"), [("sform", (0, 1)), ("qform", (1, 0))])
def test_a_form_that_the_file_does_not_have_is_refused(tmp_path, geometry, codes):
    path = a_file(tmp_path / "a.nii", turned(30, 2), turned(30, 2), codes)
    with pytest.raises(FileError, match=f"has no {geometry}"):
        read_image(path, nifti_geometry=geometry)


def test_an_unknown_choice_of_geometry_is_refused(tmp_path):
    path = a_file(tmp_path / "a.nii", turned(30, 2), None)
    with pytest.raises(OptionError, match="sform, qform"):
        read_image(path, nifti_geometry="both")


@pytest.mark.parametrize(
    ("sform", "qform", "codes", "pixdim", "words"),
    [
        (turned(30, 2), turned(20, 0), (1, 1), SPACING, "by its sform, and the qform puts it"),
        (turned(30, 2), turned(20, 0), (2, 1), SPACING, "by its qform, and the sform puts it"),
        (turned(30, 2), None, (1, 0), (1, 1, 1), "the spacing of pixdim"),
        (turned(30, 2), turned(30, 2, offset=(10, 20, 31.5)), (1, 1), SPACING, "1.5 mm"),
        (sheared(-2), turned(30, 2), (1, 1), SPACING, "sform"),
    ],
)
def test_a_contradiction_of_more_than_half_a_voxel_is_told(
    tmp_path, sform, qform, codes, pixdim, words
):
    path = a_file(tmp_path / "a.nii", sform, qform, codes, pixdim)
    note = note_of(read_image(path))
    assert words in note
    assert "the header contradicts itself" in note
    assert "a.nii" not in note  # a name may be that of a patient
    assert "--nifti-geometry" in note


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (1, 0), (0, 1), (0, 0)])
def test_forms_that_agree_within_half_a_voxel_are_not_mentioned(tmp_path, codes):
    path = a_file(tmp_path / "a.nii", turned(30, 2), turned(30, 2, offset=(10, 20, 30.9)), codes)
    assert note_of(read_image(path)) == ""


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "f4", "f8"])
def test_nifti_2_is_read(tmp_path, ending, dtype):
    image = nibabel.Nifti2Image(VOXELS.astype(dtype), turned(30, 2))
    image.header.set_data_dtype(dtype)
    header = image.header.as_byteswapped(">") if dtype.startswith(">") else image.header
    nibabel.Nifti2Image(VOXELS.astype(dtype), turned(30, 2), header).to_filename(
        tmp_path / f"a.{ending}"
    )
    read = read_image(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(read.array[0].T, VOXELS)
    assert read.array.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_allclose(
        read.grid.world_from_index, LPS_FROM_RAS @ turned(30, 2), atol=1e-5
    )


def test_nifti_2_is_rescaled_and_its_time_series_refused(tmp_path):
    image = nibabel.Nifti2Image(VOXELS, turned(30, 2))
    image.header.set_slope_inter(0.5, -3)
    image.to_filename(tmp_path / "a.nii")
    expected = nibabel.load(tmp_path / "a.nii").get_fdata()
    np.testing.assert_allclose(read_image(tmp_path / "a.nii").array[0].T, expected, atol=1e-4)
    nibabel.Nifti2Image(np.stack([VOXELS] * 3, -1), np.eye(4)).to_filename(tmp_path / "b.nii")
    with pytest.raises(FileError, match="6 x 5 x 4 x 3"):
        read_image(tmp_path / "b.nii")


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_an_sform_that_is_no_geometry_is_refused(tmp_path, bad):
    path = a_file(tmp_path / "a.nii", bad, None, (1, 0))
    with pytest.raises((FileError, GeometryError), match=r"a\.nii"):
        read_image(path)


@pytest.mark.parametrize("quaternion", [(3, 0, 0), (0.8, 0.8, 0), (0.5, -0.9, 0.7)])
def test_a_quaternion_that_is_too_long_is_a_half_turn_as_for_itk(tmp_path, quaternion):
    path = a_file(tmp_path / "a.nii", None, turned(30, 2))
    content = bytearray(path.read_bytes())
    content[256:268] = struct.pack("<3f", *quaternion)
    path.write_bytes(content)
    for geometry in ("itk", "qform"):
        read = read_image(path, nifti_geometry=geometry)
        np.testing.assert_allclose(read.grid.world_from_index, itk_matrix(path), atol=1e-4)
        assert note_of(read) == ""


@pytest.mark.parametrize("at", [80, 256])
def test_a_form_without_numbers_is_told_to_have_none(tmp_path, at):
    path = a_file(tmp_path / "a.nii", None, turned(30, 2))
    content = bytearray(path.read_bytes())
    content[at : at + 4] = struct.pack("<f", np.nan)
    path.write_bytes(content)
    assert "the qform holds what are no numbers" in note_of(read_image(path))


@pytest.mark.parametrize("slices", [1, 4])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII", "A.NII.GZ"])
@pytest.mark.parametrize("is_packed", [False, True])
def test_a_file_is_read_whether_its_name_tells_that_it_is_packed_or_not(
    tmp_path, name, is_packed, slices
):
    voxels = VOXELS[:, :, :slices]
    path = a_file(tmp_path / "plain.nii", turned(30, 2), None, voxels=voxels)
    content = path.read_bytes()
    named = tmp_path / name
    named.write_bytes(gzip.compress(content + bytes(99)) if is_packed else content)
    np.testing.assert_array_equal(read_image(named).array[0].T, voxels)
