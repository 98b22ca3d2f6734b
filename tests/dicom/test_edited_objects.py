"""Results in folders that were edited on the page: of DICOM images there are DICOM objects, too."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest
from made_up_dicom import a_result, a_rigid, in_plane

from retreg.files import read_image, write_image
from retreg.files.dicom_registration import read_registration
from retreg_server.reporting.result_folder import write_outputs
from retreg_server.reporting.result_reader import read_result
from retreg_server.reporting.sources import source_of
from retreg_server.serving.folder_app import ResultShelf
from retreg_server.serving.routes.look import EditedKeypoints


@pytest.fixture
def kept(tmp_path):
    """A function that writes a result of two images beside them; what `retreg look` reads of it."""

    def keep(fixed, moving, transform):
        folder = tmp_path / "out"
        folder.mkdir()
        images = read_image(fixed), read_image(moving)
        result = a_result(transform, images[0].grid)
        write_outputs(folder, *images, result, sources=(source_of(fixed), source_of(moving)))
        return read_result(folder)

    return keep


def edited(stored):
    """The result after its first keypoint was moved by hand, and the note on it."""
    shelf = ResultShelf([stored])
    fixed, moving = stored.result.fixed_keypoints, stored.result.moving_keypoints
    places = moving.points.copy()
    places[0, :2] += 0.4
    edit = EditedKeypoints(
        fixed=fixed.points.tolist(), moving=places.tolist(), used=[True] * len(fixed),
        transform="rigid", reach_mm=15.0,
    )  # fmt: skip
    _, new, note = shelf.refit(next(iter(shelf.ids)), edit)
    return new, note


def names(stored):
    objects = stored.folder / "dicom"
    return {str(path.relative_to(objects)) for path in objects.glob("**/*.dcm")}


SERIES = {"registration.dcm", "fiducials.dcm", "report.dcm"}


def test_an_edited_result_of_two_series_has_its_objects(a_scan, kept):
    stored = kept(a_scan("fixed"), a_scan("moving"), a_rigid())
    new, note = edited(stored)
    assert note == ""
    assert names(new) == SERIES | {f"series/{n:04d}.dcm" for n in range(1, 6)}
    found = read_registration(new.folder / "dicom" / "registration.dcm").transform
    points = stored.fixed.grid.lattice()
    np.testing.assert_allclose(found(points), new.result.transform(points), atol=1e-6)
    assert np.abs(found(points) - stored.result.transform(points)).max() > 0.01
    data = pydicom.dcmread(new.folder / "dicom" / "series" / "0001.dcm")
    assert data.SeriesDescription == "RetReg registered (edited by hand, to be checked)"


def test_what_was_edited_can_be_opened_and_edited_again(a_scan, kept):
    first, _ = edited(kept(a_scan("fixed"), a_scan("moving"), a_rigid()))
    again, note = edited(read_result(first.folder))
    assert note == ""
    assert again.folder.parent == first.folder
    assert names(again) > SERIES


def test_an_edited_result_of_two_photographs_has_its_objects(a_photograph, kept):
    stored = kept(a_photograph("fixed"), a_photograph("moving"), in_plane())
    new, note = edited(stored)
    assert note == ""
    assert names(new) == SERIES | {"registered.dcm", "blink.dcm", "checkerboard.dcm"}


def test_of_other_images_there_are_none_and_nothing_is_said(a_scan, kept, tmp_path):
    paths = tmp_path / "a.nrrd", tmp_path / "b.nrrd"
    for name, path in zip(("fixed", "moving"), paths, strict=True):
        write_image(path, read_image(a_scan(name)))
    new, note = edited(kept(*paths, a_rigid()))
    assert (names(new), note) == (set(), "")
    assert (new.folder / "result.json").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"PatientID": "P-2"}, "different patients"),
        ({"FrameOfReferenceUID": ""}, "names no frame of reference"),
        ({"Modality": "NM"}, "MR and CT, not of NM"),
        ({"SOPInstanceUID": ""}, "has no SOPInstanceUID"),
    ],
)
def test_of_images_that_cannot_have_any_it_is_said_why(a_scan, kept, changes, told):
    new, note = edited(kept(a_scan("fixed"), a_scan("moving", **changes), a_rigid()))
    assert told in note
    assert note.startswith("There are no DICOM objects of it: ")
    assert names(new) == set()
    assert (new.folder / "result.json").exists()


def test_images_that_went_away_are_missed_where_there_were_objects_before(a_scan, kept):
    fixed = a_scan("fixed")
    stored = kept(fixed, a_scan("moving"), a_rigid())
    shutil.rmtree(fixed)
    _, note = edited(read_result(stored.folder))
    assert note == "", "nobody asked for objects"
    (stored.folder / "dicom").mkdir()
    new, note = edited(read_result(stored.folder))
    assert "the DICOM images are not beside the results" in note
    assert names(new) == set()
