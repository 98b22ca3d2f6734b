"""Siemens mosaics, made from volumes of which each voxel's place is known."""

from __future__ import annotations

import struct

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from retreg.errors import FileError
from retreg.files import read_image


def csa(**fields):
    """A CSA header (SV10) with these numbers; each has the unused items that Siemens writes."""
    out = b"SV10\4\3\2\1" + struct.pack("<II", len(fields), 77)
    for name, values in fields.items():
        kind = b"IS\0\0" if name.startswith("Number") else b"FD\0\0"
        out += struct.pack("<64si4siii", name.encode(), len(values), kind, 4, 6, 77)
        for n in range(6):
            text = f"{values[n]:.10g}\0".encode() if n < len(values) else b""
            out += struct.pack("<4i", len(text), len(text), 77, len(text))
            out += text + b"\0" * (-len(text) % 4)
    return out


def a_mosaic(path, write_dicom, axes, volume, per_side, sign=1, **private):
    """Write volume (k, j, i), whose first voxel lies at (7, -8, 9), as a mosaic."""
    count, rows, columns = volume.shape
    tiles = np.zeros((per_side**2, rows, columns), volume.dtype)
    tiles[:count] = volume
    picture = np.block([[tiles[r * per_side + c] for c in range(per_side)]
                        for r in range(per_side)])  # fmt: skip
    # The header tells where a slice of the size of the picture would begin, had it this centre.
    row, column, normal = axes
    centre = np.array([7, -8, 9]) + row * (columns - 1) * 1.0 + column * (rows - 1) * 1.5
    corner = centre - row * (per_side * columns - 1) * 1.0 - column * (per_side * rows - 1) * 1.5
    path = write_dicom(
        path,
        picture,
        Modality="MR",
        ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
        ImageOrientationPatient=[round(float(c), 12) for c in (*row, *column)],
        ImagePositionPatient=[round(float(c), 10) for c in corner],
        PixelSpacing=[3, 2],
        SliceThickness=4,
        SpacingBetweenSlices=4.5,
    )
    fields = {"NumberOfImagesInMosaic": [count], "SliceNormalVector": sign * normal}
    fields |= {"B_value": []} | private
    data = pydicom.dcmread(path)
    block = data.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    known = {name: value for name, value in fields.items() if value is not None}
    block.add_new(0x10, "OB", csa(**known))
    if private.get("NumberOfImagesInMosaic", 0) is None:
        data.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", count)
    data.save_as(path)
    return path


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("count", "per_side"), [(4, 2), (5, 3), (2, 2), (16, 4), (30, 6)])
def test_a_mosaic_is_unfolded_into_its_slices(
    tmp_path, write_dicom, oblique, count, per_side, sign
):
    volume = np.random.default_rng(count).integers(0, 900, (count, 4, 6), dtype=np.uint16)
    path = a_mosaic(tmp_path / "a.dcm", write_dicom, oblique, volume, per_side, sign)
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0], volume)
    row, column, normal = oblique
    for i, j, k in ([0, 0, 0], [5, 3, 1], [2, 1, count - 1]):
        expected = np.array([7, -8, 9]) + 2 * i * row + 3 * j * column + 4.5 * k * sign * normal
        np.testing.assert_allclose(image.grid.world(np.array([[i, j, k]]))[0], expected, atol=1e-6)
    assert not image.is_picture


@pytest.mark.parametrize("sign", [1, -1])
def test_a_mosaic_lies_where_nibabel_puts_it(tmp_path, write_dicom, oblique, sign):
    wrappers = pytest.importorskip("nibabel.nicom.dicomwrappers")
    volume = np.random.default_rng(0).integers(0, 900, (11, 4, 6), dtype=np.uint16)
    path = a_mosaic(tmp_path / "a.dcm", write_dicom, oblique, volume, 4, sign)
    theirs = wrappers.MosaicWrapper(pydicom.dcmread(path))
    ours = read_image(path)
    # Their array is indexed by row and column, their world is that of DICOM, too.
    np.testing.assert_array_equal(ours.array[0].transpose(1, 2, 0), theirs.get_data())
    matrix = ours.grid.world_from_index[:, [1, 0, 2, 3]]
    np.testing.assert_allclose(matrix, theirs.affine, atol=1e-5)


def test_the_number_of_slices_may_stand_in_the_other_private_group(
    tmp_path, write_dicom, oblique
):
    volume = np.random.default_rng(0).integers(0, 900, (7, 4, 6), dtype=np.uint16)
    path = a_mosaic(
        tmp_path / "a.dcm", write_dicom, oblique, volume, 3, NumberOfImagesInMosaic=None
    )
    np.testing.assert_array_equal(read_image(path).array[0], volume)


def test_a_mosaic_is_known_by_its_number_of_slices_when_its_type_was_removed(
    tmp_path, write_dicom, oblique
):
    volume = np.random.default_rng(0).integers(0, 900, (7, 4, 6), dtype=np.uint16)
    path = a_mosaic(
        tmp_path / "a.dcm", write_dicom, oblique, volume, 3, NumberOfImagesInMosaic=None
    )
    data = pydicom.dcmread(path)
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        del data.ImageType
        data.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(path, data, implicit_vr=syntax.is_implicit_VR, little_endian=True)
        assert read_image(path).array.shape == (1, 7, 4, 6)
        data.ImageType = ["MOSAIC"]


@pytest.mark.parametrize(
    ("private", "missing"),
    [
        ({"NumberOfImagesInMosaic": []}, "the number of its slices"),
        ({"SliceNormalVector": None}, "the direction in which they follow"),
        ({"NumberOfImagesInMosaic": [20]}, "tiles of equal size"),
        ({"SliceNormalVector": [1, 0, 0]}, "contradicts itself"),
    ],
)
def test_a_mosaic_that_does_not_tell_enough_is_refused_with_the_remedy(
    tmp_path, write_dicom, private, missing
):
    axes = np.eye(3)
    volume = np.zeros((9, 4, 6), np.uint16)
    path = a_mosaic(tmp_path / "a.dcm", write_dicom, axes, volume, 3, **private)
    with pytest.raises(FileError, match=rf"mosaic.*{missing}.*dcm2niix"):
        read_image(path)


@pytest.mark.parametrize("cut", [9, 17, 60, 300, 341])
def test_a_cut_private_header_is_refused_as_one_that_does_not_tell(tmp_path, write_dicom, cut):
    volume = np.zeros((9, 4, 6), np.uint16)
    path = a_mosaic(tmp_path / "a.dcm", write_dicom, np.eye(3), volume, 3)
    data = pydicom.dcmread(path)
    element = data.private_block(0x0029, "SIEMENS CSA HEADER")[0x10]
    element.value = element.value[:cut]
    data.save_as(path)
    with pytest.raises(FileError, match="does not tell"):
        read_image(path)


def test_a_mosaic_without_private_attributes_is_refused(tmp_path, write_dicom):
    path = write_dicom(
        tmp_path / "a.dcm", np.zeros((12, 12), np.uint16), Modality="MR",
        ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"],
    )  # fmt: skip
    with pytest.raises(FileError, match=r"Siemens mosaic.*dcm2niix"):
        read_image(path)


def test_a_folder_of_mosaics_is_told_to_be_several_volumes(tmp_path, write_dicom):
    for n in range(3):
        a_mosaic(tmp_path / f"{n}", write_dicom, np.eye(3), np.zeros((9, 4, 6), np.uint16), 3)
    with pytest.raises(FileError, match="Each of the 3 files"):
        read_image(tmp_path)


@pytest.mark.parametrize(("creator", "kind", "value"), [
    ("GEMS_ACQU_01", "DS", "12.5"), ("TOSHIBA", "LO", "AXIAL"), ("Philips", "US", 9),
])  # fmt: skip
def test_the_private_element_of_another_maker_makes_no_mosaic(
    tmp_path, write_dicom, creator, kind, value
):
    path = write_dicom(tmp_path / "a.dcm", np.arange(24, dtype=np.uint16).reshape(4, 6))
    data = pydicom.dcmread(path)
    data.private_block(0x0019, creator, create=True).add_new(0x0A, kind, value)
    data.save_as(path)
    assert read_image(path).array.shape == (1, 1, 4, 6)


def test_several_mosaics_in_one_file_are_refused_with_the_remedy(tmp_path, write_dicom):
    path = write_dicom(
        tmp_path / "a.dcm", np.zeros((3, 12, 18), np.uint16), ImageType=["ORIGINAL", "MOSAIC"],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[0, 0, 0],
        PixelSpacing=[3, 2], SliceThickness=4,
    )  # fmt: skip
    with pytest.raises(FileError, match=r"holds 3 mosaics.*dcm2niix"):
        read_image(path)
