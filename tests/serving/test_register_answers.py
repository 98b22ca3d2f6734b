"""What /v1/register takes besides two files, and what it answers besides the result."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid

from retreg import wire
from retreg.files import read_image, write_image
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.serving.workers import series_files

SLICES = (5, 12, 16)


@pytest.fixture
def volumes(tmp_path):
    """The form of two volumes, and the moving one."""
    rng = np.random.default_rng(0)
    grid = Grid((16, 12, 5), np.diag([2.0, 2, 3, 1]))
    images = [Image(rng.integers(0, 900, (1, *SLICES), np.int16), grid) for _ in range(2)]
    for name, image in zip(("fixed", "moving"), images, strict=True):
        write_image(tmp_path / f"{name}.nrrd", image)
    form = {name: (f"{name}.nrrd", (tmp_path / f"{name}.nrrd").read_bytes()) for name in
            ("fixed", "moving")}  # fmt: skip
    return form, images[1]


@pytest.fixture
def a_series(tmp_path, write_dicom):
    """The files of a series as bytes, from the feet upwards, and its voxels."""
    pixels = np.random.default_rng(1).integers(0, 900, SLICES, np.int16)
    series = generate_uid()
    files = []
    for n, plane in enumerate(pixels):
        path = write_dicom(
            tmp_path / f"{n}.dcm", plane, SeriesInstanceUID=series, Modality="MR",
            PixelSpacing=[2.0, 2.0], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[0, 0, 3.0 * n],
        )  # fmt: skip
        files.append(path.read_bytes())
    return files, pixels


def zipped(files, compression=zipfile.ZIP_DEFLATED, folder="study/series/"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as packed:
        packed.writestr("__MACOSX/._0", b"what a system adds")
        packed.writestr("DICOMDIR", b"an index")
        for n, content in enumerate(files):
            packed.writestr(f"{folder}{n}", content)
    return stream.getvalue()


def test_the_result_has_an_id_under_which_more_can_be_asked_for(a_server, volumes):
    form, _ = volumes
    answer = a_server.post("/v1/register", files=form, data={"shift": "4"})
    assert answer.status_code == 200, answer.text
    job = f"/v1/registrations/{answer.json()['id']}"
    assert answer.headers["Location"] == job
    assert answer.headers["RetReg-Verdict"] == "accept"
    np.testing.assert_allclose(
        wire.decode_result(wire.loads(answer.content)).transform(np.zeros((1, 3))), [[4, 0, 0]]
    )
    assert a_server.get(f"{job}/warped").ok
    assert {**a_server.get(f"{job}/result").json(), "id": answer.json()["id"]} == answer.json()


@pytest.mark.parametrize("suffix", [None, "nrrd", "nii.gz"])
def test_the_moving_image_on_the_fixed_grid_can_be_the_answer(
    a_server, volumes, tmp_path, suffix
):
    form, moving = volumes
    query = {"answer": "warped", **({"format": suffix} if suffix else {})}
    answer = a_server.post("/v1/register", files=form, data={"shift": "4"}, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["RetReg-Verdict"] == "accept"
    path = tmp_path / f"answer.{suffix or 'nrrd'}"
    path.write_bytes(answer.content)
    warped = read_image(path)  # shifted by two voxels
    np.testing.assert_array_equal(warped.array[..., :-2], moving.array[..., 2:])


@pytest.mark.parametrize("suffix", ["h5", "tfm", "nii.gz"])
def test_the_transform_can_be_the_answer(a_server, volumes, tmp_path, suffix):
    form, _ = volumes
    query = {"answer": "transform", "format": suffix}
    answer = a_server.post("/v1/register", files=form, data={"shift": "4"}, params=query)
    assert answer.status_code == 200, answer.text
    path = tmp_path / f"transform.{suffix}"
    path.write_bytes(answer.content)
    if suffix == "nii.gz":
        found = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    else:
        found = sitk.ReadTransform(str(path))
    np.testing.assert_allclose(found.TransformPoint((10.0, 8, 6)), (14, 8, 6), atol=1e-3)


def test_all_files_of_a_result_can_be_the_answer(a_server, volumes):
    form, _ = volumes
    answer = a_server.post("/v1/register", files=form, params={"answer": "zip"})
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        names = set(packed.namelist())
        assert json.loads(packed.read("result.json"))["verdict"] == "accept"
        assert packed.read("overlay.png").startswith(b"\x89PNG")
    assert {"transform.h5", "warped.nrrd", "fixed_keypoints.mrk.json"} <= names


@pytest.mark.parametrize(
    "query",
    [
        {"answer": "everything"},
        {"answer": "warped", "format": "h5"},
        {"answer": "transform", "format": "png"},
        {"answer": "zip", "format": "h5"},
        {"format": "nrrd"},
    ],
)
def test_an_answer_that_does_not_exist_is_refused_before_the_work(a_server, volumes, query):
    form, _ = volumes
    before = len(a_server.model.requests)
    answer = a_server.post("/v1/register", files=form, params=query)
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "message"}
    assert len(a_server.model.requests) == before


@pytest.mark.parametrize("how", ["files", "zip", "stored zip", "flat zip"])
def test_a_dicom_series_is_several_files_or_a_zip(a_server, volumes, a_series, how):
    files, pixels = a_series
    form = [("moving", volumes[0]["moving"])]
    if how == "files":
        form += [("fixed", (f"IM{n}", content)) for n, content in reversed(list(enumerate(files)))]
    else:
        compression = zipfile.ZIP_STORED if how == "stored zip" else zipfile.ZIP_DEFLATED
        folder = "" if how == "flat zip" else "study/series/"
        form += [("fixed", ("series.zip", zipped(files, compression, folder)))]
    answer = a_server.post("/v1/register", files=form)
    assert answer.status_code == 200, answer.text
    fixed = a_server.model.requests[-1].fixed
    np.testing.assert_array_equal(fixed.array[0], pixels)
    np.testing.assert_allclose(fixed.grid.spacing, [2, 2, 3])


@pytest.mark.parametrize("how", ["file", "series"])
def test_a_file_becomes_an_image_that_can_be_ordered_by_its_address(
    a_server, volumes, a_series, how
):
    form, moving = volumes
    files, pixels = a_series
    several = [("image", (f"IM{n}", content)) for n, content in enumerate(files)]
    sent = [("image", form["moving"])] if how == "file" else several
    kept = a_server.post("/v1/images/files", files=sent)
    assert kept.status_code == 201, kept.text
    address = kept.json()["sha256"]
    order = {"fixed": address, "moving": address, "model": "auto-brain"}
    job = a_server.post("/v1/registrations", json=order)
    assert job.status_code == 202, job.text
    a_server.get(f"/v1/registrations/{job.json()['id']}/events")
    expected = moving.array[0] if how == "file" else pixels
    np.testing.assert_array_equal(a_server.model.requests[-1].fixed.array[0], expected)


def test_a_form_without_an_image_is_refused(a_server):
    answer = a_server.post("/v1/images/files", files={"fixed": ("a.png", b"x")})
    assert answer.status_code == 422
    assert "'image'" in answer.json()["message"]


def test_several_files_that_are_no_series_are_refused(a_server, volumes):
    form, _ = volumes
    twice = [("moving", form["moving"]), ("fixed", form["fixed"]), ("fixed", form["fixed"])]
    answer = a_server.post("/v1/register", files=twice)
    assert answer.status_code == 422
    assert "only the DICOM files of a series" in answer.json()["message"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04 and then nothing", "damaged"),
        (zipped([b"x" * 1000], zipfile.ZIP_LZMA), "rare way"),
        (zipped([]), "holds no files"),
        (zipped([b"no DICOM", b"nor this"]), "DICOM"),
    ],
)
def test_a_zip_that_holds_no_series_is_refused_in_words(a_server, volumes, content, words):
    form = {**volumes[0], "fixed": ("series.zip", content)}
    answer = a_server.post("/v1/register", files=form)
    assert answer.status_code == 422
    assert words in answer.json()["message"]


@pytest.mark.parametrize(("name", "limit"), [("MAX_FILE_BYTES", 999), ("MAX_SERIES_FILES", 1)])
def test_a_zip_that_would_grow_too_large_is_refused_before_it_is_unpacked(
    tmp_path, monkeypatch, name, limit
):
    monkeypatch.setattr(series_files, name, limit)
    with pytest.raises(series_files.FileError, match="are read"):
        series_files.unpack(memoryview(zipped([b"\0" * 1000, b"\0"])), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_zip_that_lies_about_its_sizes_is_damaged(tmp_path):
    content = bytearray(zipped([b"a" * 1000]))
    place = content.rfind((1000).to_bytes(4, "little"))  # in the directory at its end
    content[place : place + 4] = (10).to_bytes(4, "little")
    with pytest.raises(series_files.FileError, match="damaged"):
        series_files.unpack(memoryview(content), tmp_path)


def test_names_in_a_zip_lead_nowhere(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    series_files.unpack(memoryview(zipped([b"a", b"b"], folder="../../")), inside)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["00000.dcm", "00001.dcm", "inside"]
