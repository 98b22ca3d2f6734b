"""Answers have types: each JSON route names one, and what is answered is of that type."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel, TypeAdapter

from retreg import wire
from retreg.geometry import Grid
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Affine, Chain, DisplacementField, ThinPlateSpline
from retreg_server.serving.archive_orders import ArchiveJob, status_message
from retreg_server.serving.jobs import Status
from retreg_server.serving.routes import answers

CLIENT = Path(__file__).parent / "typescript" / "client.ts"
TOOLS = Path(__file__).parents[2] / "build/typescript/node_modules/.bin"  # of make test-viewers


@pytest.fixture(scope="module")
def document(a_server) -> dict:
    return a_server.get("/openapi.json").json()


def untyped(document: dict) -> list[str]:
    """The routes that answer JSON of which the document does not say what it holds."""
    found = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                schema = answer.get("content", {}).get("application/json", {}).get("schema")
                if status.startswith("2") and schema is not None and "$ref" not in schema:
                    found.append(f"{method} {path} {status}")
    return found


def test_every_route_that_answers_json_says_of_which_type(document):
    assert untyped(document) == []


def test_a_route_without_a_type_would_be_found():
    answer = {"content": {"application/json": {"schema": {}}}}
    document = {"paths": {"/new": {"get": {"responses": {"200": answer, "404": answer}}}}}
    assert untyped(document) == ["get /new 200"]


def checked(model: type[BaseModel], message: object) -> None:
    """Compare with the type, in which nothing may be missing or more."""
    TypeAdapter(model).validate_json(wire.dumps(message), strict=True)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/healthz", answers.Health),
        ("/readyz", answers.Health),
        ("/v1/info", answers.Info),
        ("/v1/models", answers.Models),
        ("/info/", answers.MonaiInfo),
        ("/auth/", answers.LogIn),
        ("/auth/token/valid", answers.Valid),
    ],
)
def test_what_the_server_says_of_itself_is_of_its_type(a_server, path, model):
    answer = a_server.get(path)
    assert answer.status_code == 200
    TypeAdapter(model).validate_json(answer.content, strict=True)


def transforms() -> list:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 50, (9, 3))
    grid = Grid((3, 4, 5), np.diag([10.0, 10, 10, 1]))
    fields = [DisplacementField(rng.normal(0, size, (3, 5, 4, 3)), grid) for size in (2, 500)]
    spline = ThinPlateSpline(points, points + 1, float("inf"), np.ones(9))
    affine = Affine.identity()
    return [affine, spline, *fields, Chain((affine, Chain((fields[0], affine))))]


@pytest.mark.parametrize("transform", transforms(), ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("backward", [None, Affine.identity()])
def test_a_result_with_any_transform_is_of_its_type(transform, backward):
    keypoints = Keypoints(np.zeros((2, 3)), np.ones(2), np.array([True, False]))
    quality = Quality({"mind": float("nan"), "agreement": 0.5}, "check", "Look at it.")
    provenance = {"model": "auto-brain", "options": {"smoothing": float("inf")}, "seconds": {}}
    notes = ("They differ.",) if backward else ()
    result = RegistrationResult(
        transform, keypoints, keypoints, quality, provenance, backward, notes
    )
    checked(answers.Result, wire.encode_result(result))
    checked(answers.Result, {"id": "0" * 32, **wire.encode_result(result)})


def test_the_states_of_a_registration_are_of_their_type(a_server, a_volume):
    header, body = wire.encode_image(a_volume)
    address = wire.image_address(header, body)
    kept = a_server.put(f"/v1/images/{address}", data=body, headers={wire.IMAGE_HEADER: header})
    TypeAdapter(answers.Kept).validate_json(kept.content, strict=True)
    for options in ({}, {"kind": "nothing"}):
        order = {"fixed": address, "moving": address, "model": "auto-brain", "options": options}
        job = a_server.post("/v1/registrations", json=order)
        checked(answers.RegistrationStatus, job.json())
        events = a_server.get(f"/v1/registrations/{job.json()['id']}/events")
        told = [json.loads(line[6:]) for line in events.text.splitlines() if line]
        assert told[-1]["state"] == ("failed" if options else "done")
        for each in told:
            checked(answers.RegistrationStatus, each)


@pytest.mark.parametrize("changes", [{}, {"registration": "a" * 32, "note": "Nothing is stored."}])
def test_the_state_of_an_order_to_an_archive_is_of_its_type(changes):
    stored = {"series": ("1.2.3",)}
    job = ArchiveJob("0" * 32, Status("running", "fetching", 0.5), stored=stored, **changes)
    checked(answers.ArchiveStatus, status_message(job))


def test_a_typescript_client_made_of_the_document_compiles(document, tmp_path):
    if not (TOOLS / "openapi-typescript").exists() or shutil.which("node") is None:
        pytest.skip("openapi-typescript is not installed; run make test-viewers")
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    shutil.copy(CLIENT, tmp_path)
    made = [TOOLS / "openapi-typescript", "openapi.json", "-o", "retreg.d.ts"]
    found = subprocess.run(made, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    right = (tmp_path / "client.ts").read_text()
    wrong = right.replace("result.quality.verdict", "result.verdict")
    (tmp_path / "wrong.ts").write_text(wrong)
    flags = ["--strict", "--noEmit", "--target", "es2022", "--moduleResolution", "bundler",
             "--module", "es2022", "--lib", "es2022,dom", "--skipLibCheck"]  # fmt: skip
    compiled = [TOOLS / "tsc", *flags, "client.ts", "wrong.ts"]
    found = subprocess.run(compiled, cwd=tmp_path, capture_output=True, text=True)
    complaints = found.stdout.splitlines()
    assert len(complaints) == 1
    assert complaints[0].startswith("wrong.ts")
    assert "'verdict' does not exist" in complaints[0]
