"""Files of a registration that has ended: the transform in three formats, the warped image."""

from __future__ import annotations

import gzip
import struct
import time

import numpy as np
import pytest
import requests
import SimpleITK

from retreg import wire
from retreg.geometry import Grid
from retreg.image import Image


@pytest.fixture
def registered(a_server):
    """Registers an image with itself; gives the path of the job and the address."""

    def register(image: Image, **options) -> tuple[str, str]:
        header, body = wire.encode_image(image)
        address = wire.image_address(header, body)
        path = f"/v1/images/{address}"
        assert a_server.put(path, data=body, headers={wire.IMAGE_HEADER: header}).ok
        order = {"fixed": address, "moving": address, "options": options}
        answer = a_server.post("/v1/registrations", json=order)
        job = f"/v1/registrations/{answer.json()['id']}"
        while a_server.get(job).json()["state"] in ("queued", "running"):
            time.sleep(0.02)
        return job, path

    return register


def downloaded(answer: requests.Response, path) -> str:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Disposition"].startswith("attachment")
    path.write_bytes(answer.content)
    return str(path)


@pytest.mark.parametrize("suffix", ["nrrd", "nii.gz"])
def test_the_warped_volume_is_what_itk_makes_of_it(a_server, registered, tmp_path, suffix):
    array = np.arange(1, 7 * 8 * 9 + 1).reshape(1, 7, 8, 9).astype(np.int16)
    image = Image(array, Grid((9, 8, 7), np.diag([2.0, 3.0, 4.0, 1.0])))
    job, _ = registered(image, shift=4.0)
    answer = a_server.get(f"{job}/warped", params={"format": suffix})
    warped = SimpleITK.ReadImage(downloaded(answer, tmp_path / f"warped.{suffix}"))
    assert warped.GetSpacing() == (2.0, 3.0, 4.0)
    answer = a_server.get(f"{job}/transform", params={"format": "h5"})
    transform = SimpleITK.ReadTransform(downloaded(answer, tmp_path / "transform.h5"))
    moving = SimpleITK.GetImageFromArray(array[0])
    moving.SetSpacing((2.0, 3.0, 4.0))
    expected = SimpleITK.Resample(moving, transform, SimpleITK.sitkLinear, 0.0)
    inside = (slice(None), slice(None), slice(0, 6))
    found, wanted = (SimpleITK.GetArrayFromImage(each)[inside] for each in (warped, expected))
    np.testing.assert_allclose(found, wanted, atol=1)


def test_the_warped_picture_can_be_had_as_png(a_server, registered, a_picture):
    job, _ = registered(a_picture, shift=0.0)
    answer = a_server.get(f"{job}/warped", params={"format": "png"})
    assert answer.content.startswith(b"\x89PNG")


def test_a_displacement_field_in_nifti_has_the_intent_of_vectors(a_server, registered, a_volume):
    job, _ = registered(a_volume, kind="tps")
    answer = a_server.get(f"{job}/transform", params={"format": "nii.gz"})
    header = gzip.decompress(answer.content)[:348]
    assert struct.unpack_from("<h", header, 68) == (1007,)
    assert struct.unpack_from("<8h", header, 40)[5] == 3


def test_the_warped_image_needs_the_moving_image(a_server, registered, a_picture):
    other = Image(a_picture.array // 2, a_picture.grid)
    job, image = registered(other)
    assert a_server.delete(image).status_code == 204
    answer = a_server.get(f"{job}/warped")
    assert (answer.status_code, answer.json()["error"]) == (404, "unknown-image")


def test_an_unfit_format_is_refused_in_words(a_server, registered, a_volume):
    job, _ = registered(a_volume)
    assert a_server.get(f"{job}/warped", params={"format": "exe"}).status_code == 422
    answer = a_server.get(f"{job}/warped", params={"format": "png"})
    assert (answer.status_code, answer.json()["error"]) == (422, "bad-file")


@pytest.mark.parametrize("what", ["transform", "warped"])
def test_files_of_two_jobs_differ_in_name_even_when_one_answer_is_that_of_the_other(
    a_server, registered, what
):
    image = Image(np.ones((1, 3, 4, 5), np.int16), Grid((5, 4, 3), np.eye(4)))
    jobs = [registered(image, shift=1.0)[0] for _ in range(2)]
    names = [a_server.get(f"{job}/{what}").headers["Content-Disposition"] for job in jobs]
    ends = {"transform": "h5", "warped": "nrrd"}
    assert names == [
        f'attachment; filename="{what}-{job.rpartition("/")[2]}.{ends[what]}"' for job in jobs
    ]
