"""The app for MONAI Label, which hands over to a running server.

Every run looks at the app with a stand-in for MONAI Label. Where the variable RETREG_MONAILABEL
names an interpreter that has MONAI Label 0.8.5, its own `start_server` and client are used as well.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import requests
import SimpleITK

pytest.importorskip("requests_toolbelt")

import monailabel_stand_in as stand_in
from dimse_peers import a_volume_series, free_port
from fastapi import HTTPException

from retreg import wire
from retreg.files import write_image
from retreg.image import Image
from retreg_server.serving.settings import Settings

APP = Path(__file__).parents[2] / "server" / "monailabel_app"
TOKEN = "correct-horse-battery"


@pytest.fixture
def main(monkeypatch):
    """The module of the app."""
    stand_in.install(monkeypatch)
    monkeypatch.delenv("RETREG_TOKEN", raising=False)
    spec = importlib.util.spec_from_file_location("retreg_monailabel_app", APP / "main.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def studies(tmp_path, a_volume):
    """Two images of a patient by their ids."""
    other = Image(a_volume.array + np.int16(1), a_volume.grid)
    paths = {}
    for name, image in (("first", a_volume), ("second", other)):
        paths[name] = str(tmp_path / f"patient {name}.nii.gz")
        write_image(paths[name], image)
    return paths


@pytest.fixture
def app(main, a_server, studies):
    return main.RetRegApp(str(APP), studies, {"server": a_server.url + "/"})


def shift_of(path):
    return SimpleITK.ReadTransform(path).TransformPoint((0.0, 0.0, 0.0))[0]


def test_the_models_of_the_server_are_the_tasks(app):
    assert set(app.infers) == {"auto-fundus", "auto-brain", "auto-volume"}
    task = app.infers["auto-fundus"]
    assert (task.type, task.dimension, task.is_valid()) == ("registration", 2, True)
    assert task.config()["shift"] == 0.0
    assert task.config()["fixed"] == ""


def test_an_image_moves_onto_the_one_that_is_named(app, a_server, a_volume):
    request = {"model": "auto-brain", "image": "second", "fixed": "first", "shift": 4.0}
    path, params = app.infer({**request, "device": "cuda", "result_extension": ".tfm"})
    asked = a_server.model.requests[-1]
    np.testing.assert_array_equal(asked.fixed.array, a_volume.array)
    np.testing.assert_array_equal(asked.moving.array, a_volume.array + 1)
    assert path.endswith(".tfm")
    assert shift_of(path) == pytest.approx(4.0)
    result = wire.decode_result(wire.loads(wire.dumps(params)))
    assert result.quality.verdict == "accept"
    assert result.provenance["options"]["shift"] == 4.0


def test_two_files_are_taken_as_by_the_server_itself(app, a_server, a_volume, studies):
    request = {"model": "auto-brain", "image": studies["first"], "label": studies["second"]}
    path, _ = app.infer(request)
    assert path.endswith(".h5")
    np.testing.assert_array_equal(a_server.model.requests[-1].fixed.array, a_volume.array)
    np.testing.assert_array_equal(a_server.model.requests[-1].moving.array, a_volume.array + 1)


def test_a_session_names_the_moving_image(app, a_server, a_volume):
    app.infer({"model": "auto-brain", "image": "first", "moving_session": "session-second"})
    np.testing.assert_array_equal(a_server.model.requests[-1].moving.array, a_volume.array + 1)


def test_a_folder_with_a_series_is_sent_as_one(app, a_server, tmp_path, write_dicom, studies):
    studies["series"] = str(a_volume_series(tmp_path / "s", write_dicom, "1.2.3", "t1", 1))
    app.infer({"model": "auto-brain", "image": "series", "fixed": "first"})
    assert a_server.model.requests[-1].moving.grid.size == (24, 20, 5)


def test_no_name_of_a_file_leaves(app, main, monkeypatch):
    sent, post = [], requests.post

    def recording(url, data, **more):
        sent.append(data.read())
        return post(url, data=sent[-1], **more)

    monkeypatch.setattr(main.requests, "post", recording)
    app.infer({"model": "auto-brain", "image": "second", "fixed": "first"})
    assert b"patient" not in sent[0]
    assert sent[0].count(b'filename="image.nii.gz"') == 2


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"image": "third"}, 404, "choose one of the studies"),
        ({"fixed": "third"}, 404, "no image for fixed"),
        ({"fixed": "/etc/hostname"}, 404, "no image for fixed"),
        ({"fixed": "", "moving_session": "../first"}, 404, "no image for moving_session"),
        ({"fixed": ""}, 422, "One image is not enough"),
        ({"unheard_of": 1}, 422, "unheard_of"),
        ({"kind": "nothing"}, 422, "Nothing in the two images looks alike."),
        ({"kind": "crash"}, 500, "failed unexpectedly"),
    ],
)
def test_what_goes_wrong_is_told_in_one_sentence(app, changes, status, said):
    with pytest.raises(HTTPException, match=said) as caught:
        app.infer({"model": "auto-brain", "image": "second", "fixed": "first", **changes})
    assert caught.value.status_code == status
    assert caught.value.detail.endswith((".", "?"))


def test_a_server_that_has_gone_is_told(app):
    app.server = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(HTTPException, match="is it running") as caught:
        app.infer({"model": "auto-brain", "image": "second", "fixed": "first"})
    assert caught.value.status_code == 502


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        (None, "add --conf server"),
        ({"server": "127.0.0.1:8600"}, "add --conf server"),
        ({"server": "http://127.0.0.1:1"}, "no RetReg server that runs"),
    ],
)
def test_without_a_server_the_app_does_not_start(main, studies, conf, said):
    with pytest.raises(stand_in.MONAILabelException) as caught:
        main.RetRegApp(str(APP), studies, conf)
    assert said in caught.value.msg


def test_the_token_comes_from_the_environment(main, start_server, studies, monkeypatch):
    with start_server(Settings(token=TOKEN)) as server:
        with pytest.raises(stand_in.MONAILabelException) as caught:
            main.RetRegApp(str(APP), studies, {"server": server.url})
        assert "answers 401" in caught.value.msg
        monkeypatch.setenv("RETREG_TOKEN", TOKEN)
        app = main.RetRegApp(str(APP), studies, {"server": server.url})
        path, _ = app.infer({"model": "auto-brain", "image": "second", "fixed": "first"})
        assert Path(path).exists()


@pytest.fixture(scope="module")
def its_server(a_server, tmp_path_factory):
    """`monailabel start_server` with the app and two studies; its address."""
    python = os.environ.get("RETREG_MONAILABEL")
    if not python:
        pytest.skip("RETREG_MONAILABEL does not name an interpreter with MONAI Label")
    folder, port = tmp_path_factory.mktemp("studies"), free_port()
    app = tmp_path_factory.mktemp("app") / "app"  # it writes a log there
    shutil.copytree(APP, app)
    for name, seed in (("first", 1), ("second", 2)):
        pixels = np.random.default_rng(seed).integers(0, 99, (5, 6, 7)).astype(np.int16)
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels), str(folder / f"{name}.nii.gz"))
    command = [
        python, "-m", "monailabel.main", "start_server", "--app", str(app), "--studies",
        str(folder), "--conf", "server", a_server.url, "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    without_ours = {name: each for name, each in os.environ.items() if name != "PYTHONPATH"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=without_ours, **pipes) as process:
        try:
            yield _when_it_answers(process, f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.communicate()


def _when_it_answers(process, url):
    end = time.monotonic() + 120
    while True:
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < end
        try:
            requests.get(f"{url}/info/", timeout=30)
        except requests.ConnectionError:
            time.sleep(0.2)
        else:
            return url


def test_monai_label_itself_registers_two_studies(its_server, a_server, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client_module = pytest.importorskip("monailabel.client.client")
    client = client_module.MONAILabelClient(its_server, tmpdir=str(tmp_path))
    assert set(client.info()["models"]) == {"auto-fundus", "auto-brain", "auto-volume"}
    path, params = client.infer("auto-brain", "second", {"fixed": "first", "shift": 4.0})
    assert shift_of(path) == pytest.approx(4.0)
    assert params["quality"]["verdict"] == "accept"
    asked = a_server.model.requests[-1]
    assert asked.fixed.grid.size == asked.moving.grid.size == (7, 6, 5)
    third = str(tmp_path / "third.nrrd")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((2, 2, 3), np.int16)), third)
    session = client.create_session(third)["session_id"]
    client.infer("auto-brain", "", {"fixed": "first"}, session_id=session)
    assert a_server.model.requests[-1].moving.grid.size == (3, 2, 2)
    with pytest.raises(client_module.MONAILabelClientException) as caught:
        client.infer("auto-brain", "second", {"fixed": "first", "kind": "nothing"})
    assert "Nothing in the two images looks alike." in caught.value.msg
