"""Images that say what they are, at a server."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retreg.about import About
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
