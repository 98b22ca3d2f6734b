"""What a DICOM input is, is decided by what it says and not by its shape."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from retreg.about import notes_on, refuse_scans_as_photographs
from retreg.errors import FileError, InputError
from retreg.files import read_image
from retreg.geometry import Grid
from retreg.image import Image

STORAGE = "1.2.840.10008.5.1.4.1.1."
PLACE = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 0]}
PIXELS = np.arange(48, dtype=np.uint8).reshape(6, 8)


@pytest.mark.parametrize(
    ("says", "content"),
    [
        ({"SOPClassUID": STORAGE + "4", "Modality": "MR"}, "scan"),
        ({"SOPClassUID": STORAGE + "2", "Modality": ""}, "scan"),
        ({"SOPClassUID": STORAGE + "4.1"}, "scan"),
        ({"SOPClassUID": STORAGE + "2.1"}, "scan"),
        ({"SOPClassUID": STORAGE + "128", "Modality": "PT"}, "scan"),
        ({"SOPClassUID": STORAGE + "7", "Modality": "MR"}, "scan"),
        ({"SOPClassUID": STORAGE + "4", "Modality": "OT"}, "scan"),
        ({"SOPClassUID": STORAGE + "7", **PLACE}, "scan"),
        ({"SOPClassUID": STORAGE + "77.1.5.4", "Modality": "OPT"}, "scan"),
        ({"SOPClassUID": STORAGE + "4", "Modality": "MR",
          "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], **PLACE}, "scan"),
        ({"SOPClassUID": STORAGE + "2", "Modality": "CT",
          "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], **PLACE}, "projection"),
        ({"SOPClassUID": STORAGE + "4", "Modality": "MR",
          "ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE"], **PLACE}, "projection"),
        ({"SOPClassUID": STORAGE + "2", "Modality": "CT",
          "ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CSA MIP", "MIP"]}, "projection"),
        ({"SOPClassUID": STORAGE + "1.1", "Modality": "DX"}, "other"),
        ({"SOPClassUID": STORAGE + "6.1", "Modality": "US"}, "other"),
        ({"SOPClassUID": STORAGE + "77.1.5.1", "Modality": "OP"}, "photograph"),
        ({"SOPClassUID": STORAGE + "77.1.5.7", "Modality": "OPTENF"}, "photograph"),
        ({"SOPClassUID": STORAGE + "7", "Modality": "OP"}, "photograph"),
        ({"SOPClassUID": STORAGE + "77.1.4", "Modality": "XC"}, "photograph"),
        ({"SOPClassUID": STORAGE + "7", "Modality": "OT", "BodyPartExamined": "BRAIN"}, "other"),
        ({"SOPClassUID": STORAGE + "7", "Modality": "", "BodyPartExamined": "CSPINE"}, "other"),
        ({"SOPClassUID": STORAGE + "7", "Modality": "OT", "BodyPartExamined": "EYE"}, ""),
        ({"SOPClassUID": STORAGE + "7", "Modality": "OT", "BodyPartExamined": "RETINA"}, ""),
        ({"SOPClassUID": STORAGE + "77.1.5.1", "BodyPartExamined": "NECK"}, "photograph"),
        ({"SOPClassUID": STORAGE + "7", "Modality": "OT"}, ""),
        ({"SOPClassUID": STORAGE + "7", "Modality": ""}, ""),
    ],
)  # fmt: skip
def test_the_header_says_what_a_picture_shows(tmp_path, write_dicom, says, content):
    image = read_image(write_dicom(tmp_path / "a.dcm", PIXELS, **says))
    assert image.is_picture
    assert image.about.content == content
    if content in ("photograph", ""):
        refuse_scans_as_photographs({"fixed": image})
        assert notes_on(image, image) == ()
    else:
        with pytest.raises(InputError, match=r"The moving image is a .*photographs of the retina"):
            refuse_scans_as_photographs({"moving": image})
        first, second = notes_on(image, image)
        assert first.startswith("The fixed image is a ")
        assert second.startswith("The moving image is a ")


def test_a_whole_volume_is_not_refused(a_series):
    folder, _ = a_series(Modality="MR")
    image = read_image(folder)
    assert image.about.content == "scan"
    refuse_scans_as_photographs({"fixed": image, "moving": image})
    assert notes_on(image, image) == ()


@pytest.mark.parametrize(
    ("modality", "kind", "told"),
    [("CT", "PROJECTION", "projections"), ("MR", "MIP", "projections"),
     ("MR", "LOCALIZER", "a localizer")],
)  # fmt: skip
def test_a_stack_of_projections_or_a_localizer_is_told(a_series, modality, kind, told):
    folder, _ = a_series(Modality=modality, ImageType=["DERIVED", "SECONDARY", kind])
    image = read_image(folder)
    (first, second) = notes_on(image, image)
    assert first.startswith(f"Of the fixed image, its slices say that they are {told}")
    assert second.startswith("Of the moving image")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("77.1.5.1", {"Modality": "OP"}),
        ("77.1.4", {"Modality": "XC"}),
        ("7.4", {"Modality": "OT"}),
        ("7.2", {}),
        ("77.1.5.1", {"Modality": "OP", "FrameTime": 100}),
        ("4", {"Modality": "MR"}),
        ("20", {"Modality": "NM", "SliceThickness": 4}),
    ],
)
def test_several_pictures_in_one_object_are_refused_or_chosen_from(
    tmp_path, write_dicom, kind, says
):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 8), dtype=np.uint8)
    path = write_dicom(tmp_path / "a.dcm", pixels, SOPClassUID=STORAGE + kind, **says)
    with pytest.raises(FileError, match=r"5 (pictures|frames).* from 1 to 5 with --frame N"):
        read_image(path)
    for frame in (1, 3, 5):
        image = read_image(path, frame=frame)
        assert image.is_picture
        np.testing.assert_array_equal(image.array[0, 0], pixels[frame - 1])
    for frame in (0, 6, -1):
        with pytest.raises(FileError, match=f"5 frames; {frame} is none of them"):
            read_image(path, frame=frame)


def test_a_frame_of_an_enhanced_object_keeps_its_place(tmp_path, write_dicom, enhanced):
    pixels = np.random.default_rng(0).integers(0, 900, (4, 5, 6), dtype=np.uint16)
    path = write_dicom(tmp_path / "a.dcm", pixels, **enhanced([6, 0, 2, 4]))
    image = read_image(path, frame=1)
    np.testing.assert_array_equal(image.array[0, 0], pixels[0])
    place = read_image(path).grid.world(np.array([[0, 0, 3]]))[0]
    np.testing.assert_allclose(image.grid.world_from_index[:3, 3], place)


def test_a_frame_is_for_dicom_files_only(tmp_path, a_series):
    from retreg.files import write_image

    path = tmp_path / "a.png"
    write_image(path, Image(PIXELS[None, None], Grid.of_picture(8, 6)))
    assert read_image(path, frame=1).is_picture
    with pytest.raises(FileError, match="leave the frame out"):
        read_image(path, frame=2)
    folder, _ = a_series()
    with pytest.raises(FileError, match="series of 6 files in the folder 'series', not frames"):
        read_image(folder, frame=2)


def test_a_scan_of_frames_without_a_place_is_a_volume_and_told(tmp_path, write_dicom):
    pixels = np.random.default_rng(0).integers(0, 900, (5, 6, 8), dtype=np.uint16)
    path = write_dicom(tmp_path / "a.dcm", pixels, Modality="MR", SpacingBetweenSlices=3)
    image = read_image(path)
    assert image.grid.size == (8, 6, 5)
    assert "no position in space" in image.about.notes[0]


def test_frames_with_one_place_and_no_distance_are_refused(tmp_path, write_dicom):
    pixels = np.zeros((5, 6, 8), np.uint16)
    path = write_dicom(tmp_path / "a.dcm", pixels, Modality="MR", **PLACE)
    with pytest.raises(FileError, match="does not say how far apart"):
        read_image(path)


def test_frames_of_a_dose_lie_where_their_offsets_say(tmp_path, write_dicom):
    pixels = np.random.default_rng(0).integers(0, 900, (3, 6, 8), dtype=np.uint16)
    path = write_dicom(tmp_path / "a.dcm", pixels, Modality="RTDOSE", SliceThickness=9,
                       GridFrameOffsetVector=[0, -2.5, -5], **PLACE)  # fmt: skip
    image = read_image(path)
    np.testing.assert_allclose(image.grid.world_from_index[:3, 2:], [[0, 0], [0, 0], [2.5, -5]])
    np.testing.assert_array_equal(image.array[0], pixels[::-1])


def side_by_side(write_dicom, folder, first, second):
    """The notes on two photographs with these attributes."""
    says = {"SOPClassUID": STORAGE + "77.1.5.1", "Modality": "OP"}
    files = [
        write_dicom(folder / f"{n}.dcm", PIXELS, **says, **more)
        for n, more in enumerate((first, second))
    ]
    return notes_on(*map(read_image, files))


def region(code):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "SCT", "somewhere"
    return Sequence([item])


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"PatientID": "A1"}, {"PatientID": "B2"}, "different patients"),
        ({"PatientName": "Secret^Ann"}, {"PatientName": "Secret^Bob"}, "different patients"),
        ({"PatientBirthDate": "19500101"}, {"PatientBirthDate": "19500102"}, "different patients"),
        ({"ImageLaterality": "L"}, {"ImageLaterality": "R"}, "of the left side"),
        ({"Laterality": "R"}, {"ImageLaterality": "L"}, "of the right side"),
        ({"RelativeImagePositionCodeSequence": region("1")},
         {"RelativeImagePositionCodeSequence": region("2")}, "different regions of the eye"),
        ({"BodyPartExamined": "EYE"}, {"BodyPartExamined": "KNEE"}, "different parts of the body"),
    ],
)  # fmt: skip
def test_what_two_files_say_against_each_other_is_a_note_without_patient_data(
    tmp_path, write_dicom, first, second, told
):
    (note,) = side_by_side(write_dicom, tmp_path, first, second)
    assert told in note
    for secret in ("A1", "B2", "Secret", "Ann", "1950"):
        assert secret not in note
    assert side_by_side(write_dicom, tmp_path, first, first) == ()
    assert side_by_side(write_dicom, tmp_path, first, {"PatientName": ""}) == ()


def test_the_name_may_be_written_in_several_ways(tmp_path, write_dicom):
    names = ({"PatientName": "Doe^Jane"}, {"PatientName": "DOE^JANE^^"})
    assert side_by_side(write_dicom, tmp_path, *names) == ()


def test_the_patient_is_never_shown(tmp_path, write_dicom):
    image = read_image(write_dicom(tmp_path / "a.dcm", PIXELS, PatientID="A1"))
    assert image.about.patient[0] == "A1"
    assert "A1" not in repr(image.about)
    assert "SECRET" not in repr(image.about).upper()
