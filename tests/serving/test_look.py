"""The page of a result: its files, what it is told, and results that are made of edited points."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel, TypeAdapter

import retreg_server.serving
from retreg import wire
from retreg.fitting import fit
from retreg.geometry import Grid
from retreg.image import Image
from retreg.local_correction import corrected
from retreg_server.serving.routes import answers
from retreg_server.serving.settings import Settings

WEB = Path(retreg_server.serving.__file__).parent / "web"
TOKEN = "a-token-of-the-tests"


@pytest.fixture
def registered(a_server):
    """Registers an image with itself; gives the id of the job."""

    def register(image: Image, **options) -> str:
        header, body = wire.encode_image(image)
        address = wire.image_address(header, body)
        path = f"/v1/images/{address}"
        assert a_server.put(path, data=body, headers={wire.IMAGE_HEADER: header}).ok
        order = {"fixed": address, "moving": address, "options": options}
        job = a_server.post("/v1/registrations", json=order).json()["id"]
        while a_server.get(f"/v1/registrations/{job}").json()["state"] in ("queued", "running"):
            time.sleep(0.02)
        return job

    return register


def result_of(server, job):
    return wire.decode_result(wire.loads(server.get(f"/v1/registrations/{job}/result").content))


def edit(result, **changes) -> dict:
    """The message of the page when nothing but changes was edited."""
    return {
        "fixed": result.fixed_keypoints.points.tolist(),
        "moving": result.moving_keypoints.points.tolist(),
        "used": [True] * len(result.fixed_keypoints),
        "transform": "correction",
        "reach_mm": 15.0,
        **changes,
    }


def test_the_page_is_small_and_asks_no_other_address():
    files = list(WEB.iterdir())
    assert {path.suffix for path in files} == {".html", ".css", ".js"}
    assert sum(path.stat().st_size for path in files) <= 60_000
    for path in files:
        assert not re.search(r"https?://|style=|<script>|\bon\w+=\"", path.read_text())


def test_the_page_and_its_files_need_no_token_and_allow_nothing_but_themselves(start_server):
    with start_server(Settings(token=TOKEN)) as server:
        page = server.get(f"/look/{'0' * 32}")
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert "unsafe" not in page.headers["Content-Security-Policy"]
        for name in re.findall(r'(?:src|href)="(page/[^"]+)"', page.text):
            assert server.get(f"/look/{name}").status_code == 200
        assert server.get("/look/page/none.js").status_code == 404
        assert server.get("/look/page/..%2Fapp.py").status_code in (404, 422)
        assert server.get(f"/v1/registrations/{'0' * 32}/look").status_code == 401
        assert server.post(f"/v1/registrations/{'0' * 32}/refit", json={}).status_code == 401


SERIES = "fixed=1.2.3.4&moving=1.2.3.5"


@pytest.mark.parametrize("path", ["/look", "/look/", f"/look/{'0' * 32}"])
@pytest.mark.parametrize(
    "link",
    [
        f"study=1.2.3&{SERIES}",
        f"fixedStudy=1.2.3&movingStudy=1.2.4&{SERIES}",
        f"study=1.2.3&movingStudy=1.2.4&{SERIES}",
        f"study=1.2.3&{SERIES}&archive=hospital&model=auto-brain",
    ],
)
def test_a_link_to_two_series_opens_the_page(a_server, path, link):
    answer = a_server.get(f"{path}?{link}")
    assert answer.status_code == 200
    assert answer.url.endswith(link)


@pytest.mark.parametrize("path", ["/look", "/look/", f"/look/{'0' * 32}"])
@pytest.mark.parametrize(
    ("link", "told"),
    [
        ("study=1.2.3", "it does not say which series is fixed"),
        ("study=1.2.3&fixed=1.2.3.4", "it does not say which series is moving"),
        ("study=1.2.3&fixed=&moving=1.2.3.5", "it does not say which series is fixed"),
        ("study=1.2.3&moving=1.2.3.5", "it does not say which series is fixed"),
        (SERIES, "it gives neither study nor fixedStudy"),
        (f"study=&{SERIES}", "it gives neither study nor fixedStudy"),
        (f"fixedStudy=1.2.3&{SERIES}", "it gives neither study nor movingStudy"),
        (f"movingStudy=1.2.3&{SERIES}", "it gives neither study nor fixedStudy"),
        (f"study=1.2.3&{SERIES}&patient=Secret", "it has 'patient', where only study, fixedStudy,"),
        (f"StudyInstanceUIDs=1.2.3&{SERIES}", "it has 'StudyInstanceUIDs', where only study"),
        (f"study=1.2.3&{SERIES}&%22%0a%c3%bc=1", r"it has '\"\\n\\xfc', where only study"),
        (f"study=1.2.3&study=1.2.4&{SERIES}", "it gives study 2 times"),
        (f"study=1.2.3&{SERIES}&fixed=1.2.3.4", "it gives fixed 2 times"),
        (f"study=Secret&{SERIES}", "study is no UID, which has digits and dots only"),
        (f"study=1..3&{SERIES}", "study is no UID"),
        (f"study={'1' * 65}&{SERIES}", "study is no UID"),
        (f"study=1.2.3&movingStudy=1.2.x&{SERIES}", "movingStudy is no UID"),
        ("study=1.2.3&fixed=../x&moving=1.2.3.5", "fixed is no UID"),
        (f"study=1.2.3&{SERIES}%20", "moving is no UID"),
        (f"study=1.2.3&{SERIES}&archive=http://inside", "archive is not the name of an archive"),
        (f"study=1.2.3&{SERIES}&archive=", "archive is not the name of an archive"),
        (f"study=1.2.3&{SERIES}&model=A%20model", "model is not the name of a model"),
    ],
)
def test_a_link_that_is_not_usable_is_told_in_a_sentence_with_an_example(
    a_server, path, link, told
):
    answer = a_server.get(f"{path}?{link}")
    assert answer.status_code == 422
    sentence = answer.json()["message"]
    assert re.match(f"The link is not usable, since {told}.*; one such as /look.study=", sentence)
    assert sentence.endswith(".")
    assert ". " not in sentence
    assert "Secret" not in sentence
    assert "http" not in sentence


def test_a_browser_sees_the_page_with_what_is_wrong_and_runs_nothing(a_server):
    link = f"study=1.2.3&{SERIES}&%3Cscript%3E=1"
    answer = a_server.get(f"/look/?{link}", headers={"Accept": "text/html,*/*;q=0.8"})
    assert answer.status_code == 422
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "since it has '&lt;script&gt;', where only" in answer.text
    assert "<script" not in answer.text


def test_a_link_without_parameters_is_told_what_was_expected(a_server):
    for path in ("/look", "/look/"):
        answer = a_server.get(path)
        assert answer.status_code == 422
        assert "it does not say which series is fixed" in answer.json()["message"]


@pytest.mark.parametrize("kind", ["a_volume", "a_picture"])
def test_the_page_gets_the_transform_as_a_field_over_the_fixed_image(
    a_server, registered, request, kind
):
    image = request.getfixturevalue(kind)
    job = registered(image, shift=2.5)
    told = a_server.get(f"/v1/registrations/{job}/look").json()
    field = wire.decode_transform(told["field"])
    corners = image.grid.corners() * 0.999 + image.grid.centre * 0.001
    np.testing.assert_allclose(field(corners), corners + [2.5, 0, 0], atol=0.01)
    assert told["quality"]["verdict"] == "accept"
    assert len(told["fixed_keypoints"]["points"]) == 64


def test_the_page_gets_pictures_and_volumes_in_8_bits(a_server, registered, a_volume, a_picture):
    for image, role in ((a_volume, "fixed"), (a_picture, "moving")):
        job = registered(image)
        answer = a_server.get(f"/v1/registrations/{job}/look/{role}")
        header = wire.decode_header(answer.headers[wire.IMAGE_HEADER], 2**30)
        shown = wire.decode_image(header, answer.content)
        assert shown.array.dtype == np.uint8
        assert shown.array.shape == image.array.shape
        np.testing.assert_allclose(shown.grid.world_from_index, image.grid.world_from_index)
        assert np.corrcoef(shown.array.ravel(), image.array.ravel())[0, 1] > 0.99


def checked(model: type[BaseModel], message: object) -> None:
    """Compare with what OpenAPI says."""
    TypeAdapter(model).validate_json(wire.dumps(message), strict=True)


def test_a_dragged_keypoint_becomes_a_result_of_its_own(a_server, registered, a_volume):
    job = registered(a_volume, shift=2.0)
    result = result_of(a_server, job)
    moving = result.moving_keypoints.points.copy()
    moving[5] = result.transform(result.fixed_keypoints.points[5:6])[0] + [1.0, -2.0, 0.5]
    sent = edit(result, moving=moving.tolist(), used=[n == 5 for n in range(64)])
    answer = a_server.post(f"/v1/registrations/{job}/refit", json=sent)
    assert answer.status_code == 201, answer.text
    checked(answers.Refitted, answer.json())
    checked(answers.Page, a_server.get(f"/v1/registrations/{job}/look").json())
    after = result_of(a_server, answer.json()["id"])
    fixed = result.fixed_keypoints.points
    by_hand = corrected(result.transform, fixed[5:6], moving[5:6], 15.0)
    np.testing.assert_allclose(after.transform(fixed[5:6]), moving[5:6], atol=0.02)
    probes = np.random.default_rng(0).uniform(-40, 40, (500, 3)) + fixed[5]
    np.testing.assert_allclose(after.transform(probes), by_hand(probes), atol=0.03)
    assert after.quality.verdict == answer.json()["verdict"] == "check"
    assert after.provenance["edited"]["from"] == f"registration {job}"
    assert after.provenance["edited"]["by"] == "hand"
    assert any("edited by hand" in note for note in after.notes)
    for path in ("transform", "warped", "look", "look/fixed", "look/moving"):
        assert a_server.get(f"/v1/registrations/{answer.json()['id']}/{path}").ok
    assert result_of(a_server, job).quality.verdict == "accept"  # the first one stays as it is


@pytest.mark.parametrize("family", ["rigid", "similarity", "affine", "tps"])
def test_a_family_is_fitted_to_the_keypoints_in_use(a_server, registered, a_volume, family):
    job = registered(a_volume)
    result = result_of(a_server, job)
    used = np.arange(64) % 5 > 0
    sent = edit(result, transform=family, smoothing=0.25, used=used.tolist())
    answer = a_server.post(f"/v1/registrations/{job}/refit", json=sent).json()
    fixed, moving = result.fixed_keypoints.points, result.moving_keypoints.points
    expected = fit(family, fixed, moving, used.astype(float), 0.25)
    found = result_of(a_server, answer["id"])
    np.testing.assert_allclose(found.transform(fixed), expected(fixed), atol=1e-3)
    assert found.fixed_keypoints.inliers.tolist() == used.tolist()


def test_an_edit_that_folds_the_image_is_called_failed(a_server, registered, a_volume):
    job = registered(a_volume)
    result = result_of(a_server, job)
    mirrored = result.fixed_keypoints.points * [-1, 1, 1]
    sent = edit(result, transform="affine", moving=mirrored.tolist())
    assert a_server.post(f"/v1/registrations/{job}/refit", json=sent).json()["verdict"] == "fail"


@pytest.mark.parametrize(
    ("changes", "slug"),
    [
        ({"transform": "magic"}, "bad-input"),
        ({"reach_mm": -1.0}, "bad-input"),
        ({"reach_mm": 1e400}, "bad-input"),
        ({"used": [True]}, "bad-input"),
        ({"fixed": [[1.0, 2.0]] * 64}, "bad-input"),
        ({}, "bad-input"),  # nothing was changed
        ({"transform": "tps", "used": [True] * 2 + [False] * 62}, "degenerate-points"),
    ],
)
def test_an_edit_that_leads_nowhere_is_refused_in_words(
    a_server, registered, a_volume, changes, slug
):
    job = registered(a_volume)
    sent = wire.dumps(edit(result_of(a_server, job), **changes))
    headers = {"Content-Type": "application/json"}
    answer = a_server.post(f"/v1/registrations/{job}/refit", data=sent, headers=headers)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"] == slug
    assert answer.json()["message"].endswith(".")


def test_a_large_image_is_thinned_and_stays_in_its_place():
    from retreg_server.reporting.look import shown_image

    matrix = np.diag([0.5, 2.0, 1.0, 1.0])
    shown = shown_image(Image(np.arange(600 * 4, dtype=np.int16).reshape(1, 1, 4, 600)
                              .repeat(2, axis=1), Grid((600, 4, 2), matrix)))
    assert shown.grid.size == (200, 4, 2)
    np.testing.assert_allclose(shown.grid.world([[10, 1, 1]]), [[15.0, 2.0, 1.0]])
