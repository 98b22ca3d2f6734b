"""Every object of a registration: valid, in the right study, with nothing that does not belong."""

from __future__ import annotations

from importlib.metadata import version
from io import BytesIO

import numpy as np
import pydicom
import pytest
from made_up_dicom import (
    AXIAL,
    CORONAL,
    OBLIQUE,
    SAGITTAL,
    STUDY,
    a_result,
    a_spline,
    an_affine,
    in_plane,
)

from retreg.dicom.encoding import Encoder
from retreg.dicom.new_object import save, with_file_header
from retreg.dicom.objects import Registered, objects_of
from retreg.dicom.source import source_of
from retreg.errors import FileError
from retreg.files import read_image
from retreg.resample import resample
from retreg.transforms import Affine

DIRECTIONS = {"axial": AXIAL, "sagittal": SAGITTAL, "coronal": CORONAL, "oblique": OBLIQUE}


def registered(fixed, moving, transform=None, verdict="accept"):
    images = read_image(fixed), read_image(moving)
    transform = transform or Affine.identity()
    result = a_result(transform, images[0].grid, verdict)
    return Registered(*images, (source_of(fixed), source_of(moving)), result, version("retreg"))


def saved_series(made, folder):
    folder.mkdir()
    for name, data in objects_of(made):
        if name.startswith("series/"):
            save(data, folder / name[7:])
    return folder


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", ["affine", "deformable"])
def test_all_objects_of_scans_are_valid(a_scan, tmp_path, dciodvfy, direction, kind):
    fixed = a_scan("fixed", DIRECTIONS[direction])
    moving = a_scan("moving", OBLIQUE, (6, 7, 5), modality="CT" if kind == "affine" else "MR")
    transform = an_affine() if kind == "affine" else a_spline(read_image(fixed).grid)
    made = dict(objects_of(registered(fixed, moving, transform)))
    assert len(made) == 2 + 5
    assert not [error for data in made.values() for error in dciodvfy(data, tmp_path)]


@pytest.mark.parametrize("kind", ["affine", "deformable"])
@pytest.mark.parametrize("look", ["colour", "grey", "16 bits"])
def test_all_objects_of_photographs_are_valid(a_photograph, tmp_path, dciodvfy, look, kind):
    rng = np.random.default_rng(0)
    pixels = {
        "colour": rng.integers(0, 256, (23, 31, 3), dtype=np.uint8),
        "grey": rng.integers(0, 256, (23, 31), dtype=np.uint8),
        "16 bits": rng.integers(0, 65536, (23, 31), dtype=np.uint16),
    }[look]
    fixed, moving = a_photograph("fixed", pixels), a_photograph("moving", pixels)
    transform = in_plane() if kind == "affine" else a_spline(read_image(fixed).grid)
    made = dict(objects_of(registered(fixed, moving, transform)))
    assert set(made) == {"registration.dcm", "fiducials.dcm", "registered.dcm", "blink.dcm"}
    assert not [error for data in made.values() for error in dciodvfy(data, tmp_path)]


def test_all_objects_of_an_enhanced_scan_are_valid(enhanced_scan, a_scan, tmp_path, dciodvfy):
    for fixed, moving in ((enhanced_scan, a_scan("a")), (a_scan("b"), enhanced_scan)):
        made = dict(objects_of(registered(fixed, moving, an_affine())))
        assert not [error for data in made.values() for error in dciodvfy(data, tmp_path)]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_series_holds_the_resampled_voxels_where_the_fixed_ones_lie(
    a_scan, tmp_path, direction
):
    fixed, moving = a_scan("fixed", DIRECTIONS[direction]), a_scan("moving", AXIAL, (6, 7, 5))
    made = registered(fixed, moving, an_affine())
    image = read_image(saved_series(made, tmp_path / "out"))
    expected = resample(made.moving, made.result.transform, made.fixed.grid)
    np.testing.assert_array_equal(image.array, expected.array)
    np.testing.assert_allclose(
        image.grid.world_from_index, made.fixed.grid.world_from_index, atol=1e-6
    )


@pytest.mark.parametrize(
    ("attributes", "dtype"),
    [
        ({"RescaleSlope": 1, "RescaleIntercept": -1024}, np.int32),
        ({"RescaleSlope": 0.5, "RescaleIntercept": 3.25}, np.float32),
    ],
)
def test_the_rescaling_of_the_moving_image_is_kept(a_scan, tmp_path, attributes, dtype):
    moving = a_scan("moving", AXIAL, (6, 7, 5), modality="CT", **attributes)
    made = registered(a_scan("fixed"), moving, an_affine())
    expected = resample(made.moving, made.result.transform, made.fixed.grid)
    assert expected.array.dtype == dtype
    for name, data in objects_of(made):
        if name.startswith("series/"):
            assert data.RescaleSlope == attributes["RescaleSlope"]
            assert data.RescaleIntercept == attributes["RescaleIntercept"]
            assert (data.PixelRepresentation, data.BitsStored) == (1, 16)
    image = read_image(saved_series(made, tmp_path / "out"))
    rounding = 0.5 * attributes["RescaleSlope"]
    np.testing.assert_allclose(image.array, expected.array, atol=rounding)


def test_frames_with_a_rescaling_each_share_one_afterwards(enhanced_scan, a_scan, tmp_path):
    made = registered(a_scan("fixed"), enhanced_scan)
    image = read_image(saved_series(made, tmp_path / "out"))
    expected = resample(made.moving, made.result.transform, made.fixed.grid)
    step = np.ptp(expected.array.astype(np.float64)) / 65535
    np.testing.assert_allclose(image.array, expected.array, atol=0.51 * step)


def test_a_photograph_is_stored_as_resampled_and_blinks_with_the_fixed_one(a_photograph, tmp_path):
    made = registered(a_photograph("fixed"), a_photograph("moving"), in_plane())
    objects = dict(objects_of(made))
    expected = resample(made.moving, made.result.transform, made.fixed.grid).array
    save(objects["registered.dcm"], tmp_path / "a.dcm")
    save(objects["blink.dcm"], tmp_path / "b.dcm")
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm").array, expected)
    blink = [read_image(tmp_path / "b.dcm", frame).array for frame in (1, 2)]
    np.testing.assert_array_equal(blink[0], made.fixed.array)
    np.testing.assert_array_equal(blink[1], expected)


def test_new_objects_lie_in_the_study_and_space_of_the_fixed_image(a_scan):
    fixed, moving = a_scan("fixed"), a_scan("moving", study="1.9.9")
    made = registered(fixed, moving, an_affine())
    header = made.sources[0].header
    objects = dict(objects_of(made))
    assert {data.StudyInstanceUID for data in objects.values()} == {"1.2.3"}
    assert {str(data.PatientName) for data in objects.values()} == {STUDY["PatientName"]}
    spaces = {data.FrameOfReferenceUID for name, data in objects.items() if "fid" not in name}
    assert spaces == {header.FrameOfReferenceUID}
    series = {data.SeriesInstanceUID for data in objects.values()}
    assert len(series) == 3
    assert header.SeriesInstanceUID not in series
    uids = [data.SOPInstanceUID for data in objects.values()]
    assert len(set(uids)) == len(uids)
    elsewhere = objects["registration.dcm"].StudiesContainingOtherReferencedInstancesSequence
    assert [item.StudyInstanceUID for item in elsewhere] == ["1.9.9"]


@pytest.mark.parametrize("photographs", [False, True])
def test_what_is_not_in_the_table_stays_where_it_is(a_scan, a_photograph, photographs):
    write = a_photograph if photographs else a_scan
    private = {"SeriesDescription": "secret series", "DeviceSerialNumber": "secret serial"}
    made = registered(write("fixed", **private), write("moving", **private))
    text = "\n".join(str(data) for _, data in objects_of(made))
    assert "Secret^Patient" in text
    for word in ("secret", "Secret^Operator", "Secret Clinic", "SECRET"):
        assert word not in text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"PatientID": "P-2"}, "different patients"),
        ({"PatientID": "", "PatientBirthDate": "19810101"}, "different patients"),
        ({"FrameOfReferenceUID": ""}, "moving image names no frame of reference"),
        ({"StudyInstanceUID": ""}, "has no StudyInstanceUID"),
        ({"Modality": "PT"}, "MR and CT, not of PT"),
    ],
)
def test_what_cannot_be_written_is_told_in_a_sentence(a_scan, change, told):
    fixed, moving = a_scan("fixed"), a_scan("moving", **change)
    with pytest.raises(FileError, match=told):
        list(objects_of(registered(fixed, moving)))


def test_a_fixed_scan_without_a_frame_of_reference_is_refused(a_scan):
    fixed = a_scan("fixed", FrameOfReferenceUID="")
    with pytest.raises(FileError, match="names no frame of reference"):
        registered(fixed, a_scan("moving"))


def test_a_picture_and_a_scan_are_refused(a_scan, a_photograph):
    with pytest.raises(FileError, match="has a place in the body and the other one has none"):
        registered(a_scan("fixed"), a_photograph("moving"))


def test_nothing_is_made_of_a_registration_that_failed(a_scan):
    with pytest.raises(FileError, match="failed, so no DICOM objects"):
        registered(a_scan("fixed"), a_scan("moving"), verdict="fail")


def test_a_file_that_is_no_dicom_is_told(tmp_path):
    from retreg.files import write_image
    from retreg.geometry import Grid
    from retreg.image import Image

    path = tmp_path / "a.nrrd"
    write_image(path, Image(np.zeros((1, 2, 2, 2), np.uint8), Grid((2, 2, 2), np.eye(4))))
    with pytest.raises(FileError, match=r"a\.nrrd is no DICOM image"):
        source_of(path)


def test_pictures_that_are_white_at_zero_are_turned_round(a_photograph, tmp_path, dciodvfy):
    pixels = np.random.default_rng(0).integers(0, 4096, (24, 32), dtype=np.uint16)
    more = {"BitsStored": 12, "HighBit": 11}
    paths = (
        a_photograph("fixed", pixels, **more),
        a_photograph("moving", pixels, PhotometricInterpretation="MONOCHROME1", **more),
    )
    objects = dict(objects_of(registered(*paths)))
    data = objects["registered.dcm"]
    assert not dciodvfy(data, tmp_path)
    assert (data.PhotometricInterpretation, data.BitsStored) == ("MONOCHROME2", 16)
    assert (data.WindowCenter, data.WindowWidth) == (2048, 4096)
    np.testing.assert_array_equal(data.pixel_array, 4095 - pixels)
    np.testing.assert_array_equal(objects["blink.dcm"].pixel_array, [pixels, 4095 - pixels])


def test_values_that_are_not_valid_are_not_copied(a_scan, tmp_path, dciodvfy):
    wrong = {"PatientAge": "42", "StudyDate": "yesterday", "StudyID": "x" * 40}
    with pytest.warns(UserWarning, match="VR"):
        fixed = a_scan("fixed", **wrong)
    for name, data in objects_of(registered(fixed, a_scan("moving"), an_affine())):
        assert "42" not in str(data.get("PatientAge", "")), name
        assert (data.StudyDate, data.StudyID) == ("", "")
        assert not dciodvfy(data, tmp_path)


@pytest.mark.parametrize("how", ["GR", ["SE", "EP"]])
def test_a_scanning_sequence_is_copied_as_the_word_that_it_is(a_scan, tmp_path, dciodvfy, how):
    paths = [a_scan(name, ScanningSequence=how) for name in ("fixed", "moving")]
    data = dict(objects_of(registered(*paths, an_affine())))["series/0001.dcm"]
    assert data.ScanningSequence == how
    assert not dciodvfy(data, tmp_path)


@pytest.mark.parametrize("letters", ["ISO_IR 100", "ISO_IR 192"])
def test_files_are_what_pydicom_writes_whether_elements_are_shared_or_not(
    a_scan, a_photograph, letters
):
    from retreg_server.dicom.object_folder import all_objects

    named = {"SpecificCharacterSet": letters, "PatientName": "Müller^Zoë"}
    scans = registered(*(a_scan(name, **named) for name in ("fixed", "moving")), an_affine())
    encoder = Encoder()
    for made in (scans, registered(a_photograph("a"), a_photograph("b"))):
        for name, data in all_objects(made):
            expected = BytesIO()
            pydicom.dcmwrite(expected, with_file_header(data), enforce_file_format=True)
            assert encoder.file(data) == expected.getvalue(), name


def test_a_file_that_was_read_is_written_as_it_was(a_scan):
    path = next(a_scan("fixed").iterdir())
    assert Encoder().file(pydicom.dcmread(path)) == path.read_bytes()


def test_nothing_of_the_patient_is_in_warnings_or_logs(a_scan, caplog, recwarn):
    from retreg_server.dicom.object_folder import all_objects

    names = {"PatientName": "Secret_Name", "PatientAge": "secret", "StudyID": "secret" * 9}
    paths = [a_scan(name, **names) for name in ("fixed", "moving")]
    caplog.clear()
    recwarn.clear()
    assert len(list(all_objects(registered(*paths)))) == 8
    said = caplog.text + "".join(str(each.message) for each in recwarn)
    assert "secret" not in said.lower()


def test_photographs_that_do_not_say_which_eye_they_show_are_refused(a_photograph):
    with pytest.raises(FileError, match="Neither photograph says which eye"):
        registered(a_photograph("a", ImageLaterality=""), a_photograph("b", ImageLaterality=""))
    made = registered(a_photograph("c"), a_photograph("d", ImageLaterality=""))
    assert dict(objects_of(made))["registered.dcm"].ImageLaterality == "R"


@pytest.mark.parametrize("says", [{"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"},
                                  {"Modality": "US", "SOPClassUID": "1.2.3"}])  # fmt: skip
def test_scans_that_lost_their_place_are_no_photographs(a_photograph, says):
    with pytest.raises(FileError, match="no photographs either"):
        registered(a_photograph("a", **says), a_photograph("b", **says))
