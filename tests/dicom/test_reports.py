"""Reports and captures: valid, and with the numbers and places that were found."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_dicom import a_result, an_affine, in_plane

from retreg.dicom.objects import Registered
from retreg.dicom.source import source_of
from retreg.files import read_image
from retreg_server.dicom.checkerboard import alternating, checkerboard_object
from retreg_server.dicom.object_folder import all_objects
from retreg_server.dicom.report import MOST_KEYPOINTS, report_object


@pytest.fixture
def registered(a_scan, a_photograph):
    """A function that makes a registration of scans, or of photographs."""

    def made(photographs, verdict="accept", count=6, **more):
        write = a_photograph if photographs else a_scan
        paths = write("fixed", **more), write("moving", **more)
        images = [read_image(path) for path in paths]
        transform = in_plane() if photographs else an_affine()
        result = a_result(transform, images[0].grid, verdict, count)
        return Registered(*images, tuple(map(source_of, paths)), result, "0.1")

    return made


def values(item):
    """Every (meaning of the name, content item) below an item."""
    for child in item.get("ContentSequence") or ():
        name = child.get("ConceptNameCodeSequence")
        yield (name[0].CodeMeaning if name else ""), child
        yield from values(child)


@pytest.mark.parametrize("photographs", [False, True])
@pytest.mark.parametrize("verdict", ["accept", "check"])
def test_a_report_is_valid_and_says_what_was_measured(
    registered, tmp_path, dciodvfy, photographs, verdict
):
    made = registered(photographs, verdict)
    data = report_object(made)
    assert not dciodvfy(data, tmp_path)
    found = list(values(data))
    measured = {
        name: float(item.MeasuredValueSequence[0].NumericValue)
        for name, item in found
        if item.ValueType == "NUM"
    }
    assert measured["agreement"] == 0.9
    assert measured["overlap"] == 0.97
    (said,) = (item.ConceptCodeSequence[0] for name, item in found if name == "Verdict")
    assert said.CodeValue == verdict
    points = [item for _, item in found if item.ValueType in ("SCOORD", "SCOORD3D")]
    assert len(points) == 12
    assert str(data.PatientName) == "Secret^Patient"
    assert "secret" not in str(data)
    assert "Secret Clinic" not in str(data)


def test_points_stand_in_the_space_of_their_image_and_the_fixed_ones_last(registered):
    made = registered(False)
    points = [item for _, item in values(report_object(made)) if item.ValueType == "SCOORD3D"]
    frames = [source.frame_of_reference for source in made.sources]
    named = [item.ReferencedFrameOfReferenceUID for item in points]
    assert named == [frames[1]] * 6 + [frames[0]] * 6
    places = np.array([item.GraphicData for item in points])
    both = [made.result.moving_keypoints.points, made.result.fixed_keypoints.points]
    np.testing.assert_allclose(places, np.concatenate(both), atol=1e-4)


def test_each_point_is_tracked_on_its_own(registered):
    data = report_object(registered(False))
    uids = [item.UID for name, item in values(data) if name == "Tracking Unique Identifier"]
    assert len(uids) == len(set(uids)) == 13


def test_of_many_keypoints_a_report_holds_the_heaviest(registered):
    made = registered(False, count=150)
    weights = [
        float(item.MeasuredValueSequence[0].NumericValue)
        for name, item in values(report_object(made))
        if name == "Weight of the keypoint"
    ]
    heaviest = np.sort(made.result.fixed_keypoints.weights)[-MOST_KEYPOINTS:]
    np.testing.assert_allclose(np.sort(weights), np.sort(np.tile(heaviest, 2)), rtol=1e-6)


def test_a_report_names_images_of_another_study(a_scan):
    fixed, moving = a_scan("fixed"), a_scan("moving", study="1.9.9")
    images = [read_image(path) for path in (fixed, moving)]
    result = a_result(an_affine(), images[0].grid)
    made = Registered(*images, (source_of(fixed), source_of(moving)), result, "0.1")
    data = report_object(made)
    assert data.StudyInstanceUID == "1.2.3"
    own, other = data.CurrentRequestedProcedureEvidenceSequence, data.PertinentOtherEvidenceSequence
    assert [item.StudyInstanceUID for item in (*own, *other)] == ["1.2.3", "1.9.9"]


def test_a_checkerboard_is_valid_and_alternates(registered, tmp_path, dciodvfy):
    made = registered(True)
    data = checkerboard_object(made)
    assert not dciodvfy(data, tmp_path)
    pixels = data.pixel_array
    np.testing.assert_array_equal(pixels[:4, :4], made.fixed.array[:, 0, :4, :4].transpose(1, 2, 0))


def test_fields_of_a_checkerboard_are_of_one_picture_or_the_other():
    first, second = np.zeros((12, 16, 3), np.uint8), np.ones((12, 16, 3), np.uint8)
    board = alternating(first, second)[..., 0]
    np.testing.assert_array_equal(board[0], [0, 0, 1, 1] * 4)
    np.testing.assert_array_equal(board[2], [1, 1, 0, 0] * 4)
    assert board.mean() == 0.5


@pytest.mark.parametrize("photographs", [False, True])
def test_the_folder_holds_report_and_capture(registered, photographs):
    names = {name for name, _ in all_objects(registered(photographs))}
    assert "report.dcm" in names
    assert ("checkerboard.dcm" in names) == photographs


def test_grey_pictures_of_16_bits_get_a_checkerboard_too(a_photograph, tmp_path, dciodvfy):
    pixels = np.random.default_rng(0).integers(0, 65536, (24, 32), dtype=np.uint16)
    path = a_photograph("grey", pixels)
    image = read_image(path)
    result = a_result(in_plane(0, (0, 0)), image.grid)
    made = Registered(image, image, (source_of(path), source_of(path)), result, "0.1")
    data = checkerboard_object(made)
    assert not dciodvfy(data, tmp_path)
    assert data.pixel_array.max() == 255
