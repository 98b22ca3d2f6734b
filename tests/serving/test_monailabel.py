"""The contract with the unmodified client of MONAI Label 0.8.5."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import requests
import SimpleITK

from retreg import wire
from retreg.files import write_image
from retreg_server.serving.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports cgi, which is deprecated
    client_module = pytest.importorskip("monailabel.client.client")

TOKEN = "correct-horse-battery"


@pytest.fixture
def its_client(a_server, tmp_path):
    return client_module.MONAILabelClient(a_server.url, tmpdir=str(tmp_path))


@pytest.fixture
def a_file(a_volume, tmp_path) -> str:
    path = tmp_path / "some patient.nrrd"
    write_image(path, a_volume)
    return str(path)


def assert_shift(path: str, expected: float) -> None:
    moved = SimpleITK.ReadTransform(path).TransformPoint((1.0, 2.0, 3.0))
    np.testing.assert_allclose(moved, (1 + expected, 2, 3))


def test_models_are_listed(its_client):
    models = its_client.info()["models"]
    assert set(models) == {"auto-fundus", "auto-brain", "auto-volume"}
    assert models["auto-fundus"]["dimension"] == 2
    assert models["auto-brain"]["config"]["shift"] == 0.0


def test_two_images_are_registered_by_file_and_label(its_client, a_file):
    path, params = its_client.infer(
        "auto-brain", "", {"shift": 4.0}, file=a_file, label_in=a_file
    )
    assert_shift(path, 4.0)
    result = wire.decode_result(wire.loads(wire.dumps(params)))
    assert len(result.fixed_keypoints) == len(result.moving_keypoints) == 64
    assert result.quality.verdict == "accept"


@pytest.mark.parametrize("ending", [".h5", ".tfm", ".nii.gz"])
def test_a_second_patient_does_not_overwrite_the_transform_of_the_first(
    its_client, a_file, ending
):
    paths = [
        its_client.infer(
            "auto-brain",
            "",
            {"shift": shift, "result_extension": ending},
            file=a_file,
            label_in=a_file,
        )[0]
        for shift in (4.0, 5.0, 4.0)
    ]
    assert len(set(paths)) == 3
    assert all(path.endswith(ending) for path in paths)
    if ending != ".nii.gz":
        for path, shift in zip(paths, (4.0, 5.0, 4.0), strict=True):
            assert_shift(path, shift)


def test_two_images_are_registered_by_session(its_client, a_file, a_server, a_volume):
    fixed = its_client.create_session(a_file)
    moving = its_client.create_session(a_file)["session_id"]
    session = fixed["session_id"]
    assert its_client.get_session(session)["name"] == session
    wishes = {"shift": -3.0, "moving_session": moving, "result_extension": ".tfm"}
    path, _ = its_client.infer("auto-brain", "", wishes, session_id=session)
    assert Path(path).suffix == ".tfm"
    assert_shift(path, -3.0)
    np.testing.assert_array_equal(a_server.model.requests[-1].moving.array, a_volume.array)
    its_client.remove_session(session)
    with pytest.raises(client_module.MONAILabelClientException) as caught:
        its_client.get_session(session)
    assert caught.value.status_code == 404


def test_a_session_and_a_file_are_registered(its_client, a_file):
    session = its_client.create_session(a_file)["session_id"]
    path, _ = its_client.infer("auto-brain", "", {}, session_id=session, label_in=a_file)
    assert_shift(path, 0.0)


def test_an_answer_names_no_file_of_the_server_or_the_client(its_client, a_file):
    text = str(its_client.create_session(a_file))
    assert "patient" not in text
    assert "/" not in text


@pytest.mark.parametrize(
    ("model", "params", "status"),
    [
        ("auto-magic", {}, "404"),
        ("auto-brain", {"unheard_of": 1}, "422"),
        ("auto-brain", {"kind": "nothing"}, "422"),
        ("auto-brain", {"kind": "crash"}, "500"),
        ("auto-brain", {"moving_session": "0" * 32}, "404"),
    ],
)
def test_errors_have_real_statuses_and_sentences(its_client, a_file, model, params, status):
    with pytest.raises(client_module.MONAILabelClientException) as caught:
        its_client.infer(model, "", params, file=a_file, label_in=a_file)
    assert f"Status: {status}" in caught.value.msg
    assert "Traceback" not in caught.value.msg


def test_one_image_is_not_enough(its_client, a_file):
    with pytest.raises(client_module.MONAILabelClientException) as caught:
        its_client.infer("auto-brain", "", {}, file=a_file)
    assert "label" in caught.value.msg


def test_the_client_logs_in_with_the_token_as_password(start_server, a_file, tmp_path):
    with start_server(Settings(token=TOKEN)) as server:
        client = client_module.MONAILabelClient(server.url, tmpdir=str(tmp_path))
        assert client.auth_enabled()
        assert not client.auth_valid_token()
        with pytest.raises(client_module.MONAILabelClientException):
            client.info()
        with pytest.raises(client_module.MONAILabelClientException) as caught:
            client.auth_token("me", "wrong")
        assert caught.value.status_code == 401
        client.update_auth(client.auth_token("me", TOKEN))
        assert client.auth_valid_token()
        path, _ = client.infer("auto-brain", "", {"shift": 1.0}, file=a_file, label_in=a_file)
        assert_shift(path, 1.0)
        assert len(client.info()["models"]) == 3  # it repeats the length of the last body here


def test_a_server_without_a_token_says_that_none_is_needed(its_client):
    assert not its_client.auth_enabled()
    with pytest.raises(client_module.MONAILabelClientException):
        its_client.auth_token("me", "")


@pytest.mark.parametrize("params", ["[1]", "{", '{"a": NaN}'])
def test_params_that_are_no_object_are_refused(a_server, params):
    answer = requests.post(
        a_server.url + "/infer/auto-brain", files={"params": (None, params)}, timeout=10
    )
    assert answer.status_code == 422


def test_the_result_can_be_had_as_json_or_file_alone(a_server, a_file):
    for output, kind in (("json", "application/json"), ("image", "application/octet-stream")):
        with Path(a_file).open("rb") as fixed, Path(a_file).open("rb") as moving:
            answer = requests.post(
                f"{a_server.url}/infer/auto-brain?output={output}",
                files={"file": fixed, "label": moving},
                timeout=20,
            )
        assert answer.headers["Content-Type"] == kind
