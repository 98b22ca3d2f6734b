"""Images that say what they are, at a server."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retreg.about import About, notes_on
from retreg.client import Client
from retreg.errors import InputError
from retreg.image import Image


@pytest.fixture
def a_slice(a_picture) -> Image:
    """A picture that says that it is a slice of a scan of some patient."""
    return Image(a_picture.array, a_picture.grid, About("scan", patient=("A1", "", "")))


def test_a_slice_gets_no_model_for_the_retina_unless_it_is_named(a_server, a_slice, a_picture):
    with Client(a_server.url) as client:
        for fixed, moving in ((a_slice, a_picture), (a_picture, a_slice)):
            with pytest.raises(InputError, match=r"a single slice of a scan.*name a model"):
                client.register(fixed, moving)
        before = len(a_server.model.requests)
        result = client.register(a_slice, a_picture, model="auto-fundus")
    assert a_server.model.requests[before].fixed.about == About("scan")
    assert result.notes == (
        "The fixed image is a single slice of a scan, such as MR or CT, and was registered as a "
        "picture.",
    )


def test_the_client_knows_of_different_patients_and_tells_no_one(a_server, a_slice):
    about = replace(a_slice.about, patient=("B2", "", ""))
    other = Image(np.ascontiguousarray(a_slice.array[:, :, ::-1]), a_slice.grid, about)
    with Client(a_server.url) as client:
        result = client.register(a_slice, other, model="auto-fundus")
    assert result.notes[-1] == "The two images say that they are of different patients."
    assert a_server.model.requests[-1].moving.about.patient == ("", "", "")


def test_an_uploaded_slice_is_refused_and_an_uploaded_photograph_is_not(
    a_server, tmp_path, write_dicom
):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    for modality, status in (("MR", 400), ("OP", 200)):
        kind = {"MR": "4", "OP": "77.1.5.1"}[modality]
        path = write_dicom(
            tmp_path / "a.dcm", pixels, Modality=modality,
            SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{kind}",
        )  # fmt: skip
        content = path.read_bytes()
        files = {role: (f"{role}.dcm", content) for role in ("fixed", "moving")}
        answer = a_server.post("/v1/register", files=files)
        assert answer.status_code // 100 == status // 100, answer.text
        if modality == "MR":
            assert "single slice of a scan" in answer.text


PHOTOGRAPH = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.5.1", "Modality": "OP"}


def uploaded(server, paths, **fields):
    """The answer to two files sent with curl."""
    files = {
        role: (f"{role}.dcm", path.read_bytes())
        for role, path in zip(("fixed", "moving"), paths, strict=True)
    }
    return server.post("/v1/register", files=files, data=fields)


def test_uploads_of_two_patients_are_told_apart_without_knowing_them(
    a_server, tmp_path, write_dicom
):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    paths = [
        write_dicom(tmp_path / f"{n}.dcm", pixels, PatientID=f"NUMBER{n}", **PHOTOGRAPH)
        for n in range(2)
    ]
    assert uploaded(a_server, paths).status_code == 200
    first, second = (getattr(a_server.model.requests[-1], role) for role in ("fixed", "moving"))
    assert notes_on(first, second) == ("The two images say that they are of different patients.",)
    assert notes_on(first, first) == ()
    assert first.about.patient == ("", "", "")
    assert "NUMBER" not in str(first.about.tokens)
    assert first.about.tokens[1] == second.about.tokens[1] != ""  # the same name


@pytest.mark.parametrize(
    ("fields", "fixed", "moving"),
    [({"frame": "2"}, 2, 2), ({"fixed_frame": "1", "moving_frame": "3"}, 1, 3)],
)
def test_a_picture_of_an_uploaded_file_is_chosen(
    a_server, tmp_path, write_dicom, fields, fixed, moving
):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    path = write_dicom(tmp_path / "a.dcm", pixels, **PHOTOGRAPH)
    assert uploaded(a_server, [path, path], **fields).status_code == 200
    request = a_server.model.requests[-1]
    np.testing.assert_array_equal(request.fixed.array[0, 0], pixels[fixed - 1])
    np.testing.assert_array_equal(request.moving.array[0, 0], pixels[moving - 1])
    for wrong in ({}, {"frame": "0"}, {"frame": "4"}, {"frame": "x"}, {"frame": "1" * 30}):
        answer = uploaded(a_server, [path, path], **wrong)
        assert answer.status_code // 100 == 4, answer.text
        assert "frame" in answer.json()["message"]
