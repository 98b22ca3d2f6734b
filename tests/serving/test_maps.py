"""Maps of a registration that has ended, as files."""

from __future__ import annotations

import time
from typing import get_args, get_type_hints

import numpy as np
import pytest
import SimpleITK

from retreg import wire
from retreg.geometry import Grid
from retreg.image import Image
from retreg.maps import KINDS
from retreg_server.serving.routes import registrations


@pytest.fixture
def registered(a_server):
    """Registers an image with itself; gives the path of the job."""

    def register(image: Image, **options) -> str:
        header, body = wire.encode_image(image)
        address = wire.image_address(header, body)
        sent = a_server.put(
            f"/v1/images/{address}", data=body, headers={wire.IMAGE_HEADER: header}
        )
        assert sent.ok
        order = {"fixed": address, "moving": address, "options": options}
        answer = a_server.post("/v1/registrations", json=order)
        job = f"/v1/registrations/{answer.json()['id']}"
        while a_server.get(job).json()["state"] in ("queued", "running"):
            time.sleep(0.02)
        return job

    return register


def test_every_kind_of_map_can_be_asked_for():
    assert get_args(get_type_hints(registrations.registration_map)["name"]) == tuple(KINDS)


@pytest.mark.parametrize("suffix", ["nrrd", "nii.gz"])
@pytest.mark.parametrize(("name", "value"), [("error", 4), ("displacement", 4), ("jacobian", 1)])
def test_a_map_of_a_volume_is_an_image_on_the_fixed_one(
    a_server, registered, tmp_path, suffix, name, value
):
    image = Image(np.zeros((1, 7, 8, 9), np.int16), Grid((9, 8, 7), np.diag([2.0, 3, 4, 1])))
    job = registered(image, shift=4.0)
    answer = a_server.get(f"{job}/maps/{name}", params={"format": suffix})
    assert answer.status_code == 200, answer.text
    own = f"map_{name}-{job.rpartition('/')[2]}.{suffix}"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{own}"'
    path = tmp_path / f"map.{suffix}"
    path.write_bytes(answer.content)
    found = SimpleITK.ReadImage(str(path))
    assert found.GetSpacing() == (2, 3, 4)
    np.testing.assert_allclose(SimpleITK.GetArrayFromImage(found), value, atol=1e-5)


def test_a_map_of_a_picture_can_be_had_with_a_colour_bar(a_server, registered, a_picture):
    job = registered(a_picture, shift=2.0)
    answer = a_server.get(f"{job}/maps/beltrami", params={"format": "png"})
    assert answer.content.startswith(b"\x89PNG")


def test_a_map_that_cannot_be_made_is_refused_in_a_sentence(a_server, registered, a_volume):
    job = registered(a_volume, kind="tps")
    for name, reason in (("error", "from moving to fixed"), ("beltrami", "for pictures only")):
        answer = a_server.get(f"{job}/maps/{name}")
        assert answer.status_code == 422
        assert reason in answer.json()["message"]
    assert a_server.get(f"{job}/maps/colour").status_code in (400, 404, 422)
    assert a_server.get(f"/v1/registrations/{'0' * 32}/maps/error").status_code == 404
