"""Slices are told apart by where they lie, whatever became of their numbers."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from retreg.errors import FileError
from retreg.files import read_image


def rewritten(folder, **attributes):
    """Set attributes in every file; a function gets the number of the file."""
    for n, path in enumerate(sorted(folder.iterdir())):
        data = pydicom.dcmread(path)
        for name, value in attributes.items():
            setattr(data, name, value(n) if callable(value) else value)
        data.save_as(path)


@pytest.mark.parametrize(
    "ruined",
    [
        {"SOPInstanceUID": "1.2.3"},
        {"SOPInstanceUID": "1.2.3", "InstanceNumber": 1},
        {"SOPInstanceUID": ""},
        {"InstanceNumber": lambda n: 100 - n},
        {"SeriesInstanceUID": lambda n: f"1.2.3.{n}"},
        {"SeriesInstanceUID": lambda n: f"1.2.3.{n}", "SOPInstanceUID": "1.2", "SeriesNumber": 3},
        {"SeriesInstanceUID": "", "SOPInstanceUID": "1.2"},
    ],
)
def test_what_deidentification_ruined_does_not_matter(a_series, ruined):
    folder, pixels = a_series(count=7)
    rewritten(folder, **ruined)
    image = read_image(folder)
    np.testing.assert_array_equal(image.array[0], pixels)
    np.testing.assert_allclose(image.grid.spacing[2], 2.5)
    assert image.about.notes == ()


@pytest.mark.parametrize("copies", [1, 3, 7])
def test_a_slice_that_is_stored_twice_counts_once_and_is_told(a_series, copies):
    folder, pixels = a_series(count=7)
    for n, path in enumerate(sorted(folder.iterdir())[:copies]):
        data = pydicom.dcmread(path)
        data.SOPInstanceUID = generate_uid()
        data.save_as(folder / f"copy{n}")
    image = read_image(folder)
    np.testing.assert_array_equal(image.array[0], pixels)
    assert len(image.about.notes) == 1
    assert image.about.notes[0].startswith(f"{copies} slice")


def test_a_repeat_is_told_when_every_slice_has_a_series_of_its_own(a_series):
    folder, pixels = a_series(count=7)
    rewritten(folder, SeriesInstanceUID=lambda n: f"1.2.3.{n}")
    first = min(folder.iterdir())
    (folder / "copy").write_bytes(first.read_bytes())
    image = read_image(folder)
    np.testing.assert_array_equal(image.array[0], pixels)
    assert image.about.notes[0].startswith("1 slice is stored once more")


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"EchoTime": 5}, {"EchoTime": 80}, "differ in echo time"),
        ({"TemporalPositionIdentifier": 1, "AcquisitionNumber": 1},
         {"TemporalPositionIdentifier": 2, "AcquisitionNumber": 2},
         "time point and acquisition number"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "P"]},
         r"image type \(as magnitude and phase\)"),
        ({"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}, "b-value"),
        ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}, "kernel"),
        ({}, {}, "their headers do not say why"),
    ],
)  # fmt: skip
def test_different_images_of_one_place_are_refused_with_what_differs(
    a_series, first, second, told
):
    folder, pixels = a_series(count=5, **first)
    rewritten(folder, **first)
    for path in list(folder.iterdir()):
        path.rename(path.with_name(f"first{path.name}"))
    a_series(count=5, pixels=pixels + np.int16(7), **second)
    with pytest.raises(FileError, match=rf"2 different slices lie .*5 of 5.*{told}"):
        read_image(folder)


@pytest.mark.parametrize(
    ("heights", "told"),
    [
        ([0, 3, 6, 9, 15, 18], "1 slice seems to be missing: slices 4 and 5 of 6 lie 6 mm apart"),
        ([0, 3, 9, 12, 21, 24], "3 slices seem to be missing: slices 2 and 3 of 6"),
        ([0, 1, 3], "1 slice seems to be missing: slices 2 and 3 of 3 lie 2 mm apart, where 1 mm"),
        ([0, 3, 6, 9, 15, 21, 27], "changes from 3 to 6 mm after slice 4 of 7"),
        ([0, 5, 10, 12, 14, 16, 18], "changes from 5 to 2 mm after slice 3 of 7"),
        ([0, 1, 2, 3, 4.5, 5.5, 6.5], "slices 4 and 5 of 7 lie 1.5 mm apart, where 1 mm was"),
        ([0, 1, 1.5, 2, 3, 4, 5], "slices 2 and 3 of 7 lie 0.5 mm apart, where 1 mm was"),
    ],
)
def test_gaps_are_told_for_what_they_are(a_series, heights, told):
    folder, _ = a_series(heights=np.array(heights, float))
    with pytest.raises(FileError, match=told):
        read_image(folder)


def test_echoes_whose_positions_were_rounded_differently_lie_at_one_place(a_series):
    heights = np.sort(np.concatenate([np.arange(6) * 2.5, np.arange(6) * 2.5 + 0.04]))
    folder, _ = a_series(heights=heights)
    with pytest.raises(FileError, match=r"2 different slices lie .* 6 of 6 places"):
        read_image(folder)


def test_two_stacks_side_by_side_are_refused(a_series):
    folder, _ = a_series(count=4)
    rewritten(folder, InstanceNumber=1)
    for path in list(folder.iterdir()):
        data = pydicom.dcmread(path)
        row = np.array(data.ImageOrientationPatient[:3], float)
        moved = np.array(data.ImagePositionPatient, float) + 80 * row
        data.ImagePositionPatient = [round(float(c), 10) for c in moved]
        data.save_as(folder / f"beside{path.name}")
    with pytest.raises(FileError, match=r"2 slices lie in the same plane, 80 mm apart.*side by"):
        read_image(folder)


def test_a_localizer_is_refused_with_its_orientations(a_series):
    planes = ([1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1])
    for n, cosines in enumerate(planes):
        folder, _ = a_series(count=3, EchoNumbers=n, ImageOrientationPatient=cosines,
                             ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])  # fmt: skip
    with pytest.raises(FileError, match="3 axial, 3 coronal, 3 sagittal"):
        read_image(folder)


def test_slices_without_a_position_among_others_are_refused(a_series):
    folder, _ = a_series(count=5)
    path = min(folder.iterdir())
    data = pydicom.dcmread(path)
    del data.ImagePositionPatient
    data.save_as(path)
    with pytest.raises(FileError, match="1 of the 5 slices have no position"):
        read_image(folder)


def test_enhanced_frames_of_one_place_are_told_apart_by_their_groups(
    tmp_path, write_dicom, enhanced
):
    pixels = np.random.default_rng(0).integers(0, 900, (6, 4, 6), dtype=np.uint16)
    groups = enhanced([0, 1, 2, 0, 1, 2])
    for n, group in enumerate(groups["PerFrameFunctionalGroupsSequence"]):
        content = pydicom.Dataset()
        content.TemporalPositionIndex = 1 + n // 3
        group.FrameContentSequence = pydicom.Sequence([content])
    path = write_dicom(tmp_path / "a.dcm", pixels, **groups)
    with pytest.raises(FileError, match=r"2 different slices .* differ in time point"):
        read_image(path)
    pixels[3:] = pixels[:3]
    image = read_image(write_dicom(tmp_path / "b.dcm", pixels, **groups))
    np.testing.assert_array_equal(image.array[0], pixels[:3])
    assert image.about.notes[0].startswith("3 slices are stored once more")


def test_a_series_is_found_below_a_folder_and_without_preambles(a_series, tmp_path):
    folder, pixels = a_series(count=8)
    for n, path in enumerate(sorted(folder.iterdir())):
        place = tmp_path / "disc" / "a" / str(n % 3)
        place.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes()
        (place / path.name).write_bytes(content[(0, 128, 132)[n % 3] :])
    directory = pydicom.Dataset()
    directory.DirectoryRecordSequence = pydicom.Sequence([])
    directory.file_meta = pydicom.dataset.FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    directory.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    directory.save_as(tmp_path / "disc" / "DICOMDIR", enforce_file_format=True)
    np.testing.assert_array_equal(read_image(tmp_path / "disc").array[0], pixels)


@pytest.mark.parametrize("is_implicit", [True, False])
def test_a_bare_data_set_without_meta_information_is_read(tmp_path, write_dicom, is_implicit):
    pixels = np.arange(35, dtype=np.uint16).reshape(5, 7)
    data = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", pixels))
    del data.file_meta
    data.save_as(tmp_path / "bare", implicit_vr=is_implicit, little_endian=True)
    np.testing.assert_array_equal(read_image(tmp_path / "bare").array[0, 0], pixels)


def test_several_series_are_named_by_number_and_size(a_series, tmp_path):
    a_series("all/one", count=6, SeriesNumber=2)
    a_series("all/two", count=5, SeriesNumber=4, SeriesInstanceUID=generate_uid(),
             pixels=np.zeros((5, 8, 9), np.int16))  # fmt: skip
    wanted = (
        "2 DICOM series in the folder 'all': series 2 with 6 images of 7 x 5; series 4 with 5 "
        r"images of 9 x 8\."
    )
    with pytest.raises(FileError, match=wanted + " Give the folder of one series"):
        read_image(tmp_path / "all")
    assert read_image(tmp_path / "all" / "one").array.shape == (1, 6, 5, 7)


def test_series_under_one_uid_are_told_apart_by_their_number(a_series):
    folder, pixels = a_series(count=9, SeriesNumber=2)
    a_series(count=2, SeriesNumber=1, EchoNumbers=1)
    image = read_image(folder)
    np.testing.assert_array_equal(image.array[0], pixels)
    assert image.about.notes == (
        "series 2 with 9 images of 7 x 5 was taken, and what is smaller left out: series 1 with "
        "2 images of 7 x 5.",
    )


def test_the_frames_of_a_file_count_as_images(a_series, write_dicom, enhanced):
    folder, _ = a_series("mixed", count=3, SeriesNumber=1)
    pixels = np.random.default_rng(0).integers(0, 900, (15, 4, 6), dtype=np.uint16)
    write_dicom(folder / "all", pixels, SeriesNumber=2, **enhanced(np.arange(15)))
    image = read_image(folder)
    np.testing.assert_array_equal(image.array[0], pixels)
    assert "series 1 with 3 images" in image.about.notes[0]


def test_a_series_is_of_one_patient(a_series):
    folder, _ = a_series(count=8)
    rewritten(folder, PatientID=lambda n: "first" if n % 2 else "second")
    with pytest.raises(FileError, match=r"are 2 DICOM series.*4 images") as refused:
        read_image(folder)
    assert "first" not in str(refused.value)


@pytest.mark.parametrize(
    "cosines", [[2, 0, 0, 0, 2, 0], [1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0], [1, 0, 0, 0.5, 1, 0]]
)
def test_directions_that_are_none_are_refused_by_name(a_series, cosines):
    folder, _ = a_series(ImageOrientationPatient=cosines)
    with pytest.raises(FileError, match="ImageOrientationPatient does not hold two unit vectors"):
        read_image(folder)


def test_an_orientation_of_zeros_is_none(tmp_path, write_dicom, a_series):
    zeros = [0, 0, 0, 0, 0, 0]
    picture = read_image(
        write_dicom(tmp_path / "a.dcm", np.zeros((4, 5), np.uint8), PixelSpacing=[2, 3],
                    ImageOrientationPatient=zeros, ImagePositionPatient=zeros[:3])
    )  # fmt: skip
    np.testing.assert_array_equal(picture.grid.world_from_index, np.diag([3, 2, 1, 1]))
    folder, _ = a_series(ImageOrientationPatient=zeros)
    with pytest.raises(FileError, match="no positions in space"):
        read_image(folder)


def test_a_photograph_with_a_spacing_of_zero_counts_in_pixels(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", np.zeros((4, 5), np.uint8), PixelSpacing=[0, 0])
    np.testing.assert_array_equal(read_image(path).grid.world_from_index, np.eye(4))


def test_a_slice_with_a_spacing_of_zero_is_refused(a_series):
    folder, _ = a_series(PixelSpacing=[0, 0])
    with pytest.raises(FileError, match="PixelSpacing is not positive"):
        read_image(folder)
