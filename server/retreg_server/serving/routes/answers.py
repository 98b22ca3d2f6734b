"""What the routes answer, as types: they make the OpenAPI document, and clients from it.

The routes write JSON by retreg.wire, in the same shape; tests/serving/test_answers.py compares.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from retreg.messages import ImageKind
from retreg.quality import Verdict

Spelled = Literal["Infinity", "-Infinity", "NaN"]
Number = float | Spelled
Row = Annotated[list[float], Field(min_length=4, max_length=4)]
Matrix = Annotated[
    list[Row], Field(min_length=4, max_length=4, description="rows of 4 x 4, LPS mm")
]
Point = Annotated[list[float], Field(min_length=3, max_length=3, description="x, y, z in LPS mm")]
State = Literal["queued", "running", "done", "failed", "cancelled"]


class Answer(BaseModel):
    """What nothing may be added to without a word here."""

    model_config = ConfigDict(extra="forbid")


class Health(Answer):
    """Whether the server is there."""

    status: Literal["ok", "ready"]


class Info(Answer):
    """Version, encodings and limits of a server."""

    name: Literal["RetReg"]
    version: str
    encodings: list[str]
    dtypes: list[str]
    max_image_bytes: int
    queue_size: int


class OptionInfo(Answer):
    """An option of a model, from which a client draws a control."""

    name: str
    title: str
    type: Literal["boolean", "integer", "number", "choice"]
    default: bool | int | Number | str
    choices: list[str]
    minimum: Number | None
    maximum: Number | None
    families: list[str]


class Model(Answer):
    """A model on offer."""

    name: str
    title: str
    kinds: list[ImageKind]
    produces: list[str]
    options: list[OptionInfo]
    citation: str
    licence: str
    weights_sha256: str
    subject: str


class Models(Answer):
    """The models on offer, in the order of the server."""

    models: list[Model]


class Kept(Answer):
    """An image that the server keeps."""

    sha256: str


class Failure(Answer):
    """Why something ended."""

    error: str
    message: str


class RegistrationStatus(Answer):
    """How far a registration is."""

    id: str
    model: str
    state: State
    stage: str
    fraction: float
    error: Failure | None = None


class ArchiveStatus(Answer):
    """How far a registration of two series of an archive is. stored: instance UIDs by series.

    verdict and reason: as soon as there is a result.
    """

    id: str
    state: State
    stage: str
    fraction: float
    registration: str | None
    stored: dict[str, list[str]]
    verdict: Verdict | None = None
    reason: str | None = None
    note: str | None = None
    error: Failure | None = None


class GridAnswer(Answer):
    """A lattice: its numbers of nodes along i, j, k, and where they lie."""

    size: Annotated[list[int], Field(min_length=3, max_length=3)]
    world_from_index: Matrix


class AffineAnswer(Answer):
    """moving = matrix @ fixed."""

    type: Literal["affine"]
    moving_from_fixed: Matrix


class SplineAnswer(Answer):
    """A thin-plate spline through control points; see retreg.ThinPlateSpline."""

    type: Literal["tps"]
    fixed_points: list[Point]
    moving_points: list[Point]
    weights: list[float] | None
    smoothing: Number
    kernel: str


class FieldAnswer(Answer):
    """moving = fixed + the displacement there; data: base64, little-endian, (3, k, j, i)."""

    type: Literal["field"]
    grid: GridAnswer
    encoding: Literal["int16", "float32", "float64"]
    data: str


class ChainAnswer(Answer):
    """The transforms one after the other, the first one first."""

    type: Literal["chain"]
    transforms: list[TransformAnswer]


TransformAnswer = Annotated[
    AffineAnswer | SplineAnswer | FieldAnswer | ChainAnswer, Field(discriminator="type")
]


class KeypointsAnswer(Answer):
    """Points, their weights, and whether the transform meets them, in one order."""

    points: list[Point]
    weights: list[float]
    inliers: list[bool]


class QualityAnswer(Answer):
    """What was measured, and what follows from it."""

    numbers: dict[str, Number]
    verdict: Verdict
    reason: str


class Result(Answer):
    """A registration. id: under which it can be asked for again; /v1/register sends it."""

    id: str | None = None
    transform: TransformAnswer
    fixed_keypoints: KeypointsAnswer
    moving_keypoints: KeypointsAnswer
    quality: QualityAnswer
    provenance: dict[str, Any]
    backward: TransformAnswer | None = None
    notes: list[str] = []


class Page(Answer):
    """What the page that shows a registration is told. field: the transform on a lattice over the
    whole fixed image. reach_mm: how far a correction reaches at first. unit: of the world."""

    model: str
    fixed_keypoints: KeypointsAnswer
    moving_keypoints: KeypointsAnswer
    quality: QualityAnswer
    notes: list[str] = []
    field: FieldAnswer
    reach_mm: float
    unit: str


class Refitted(Answer):
    """A registration that was made of edited keypoints."""

    id: str
    verdict: Verdict
    reason: str


class MonaiInfo(BaseModel):
    """The models, as MONAI Label's clients expect them."""

    name: str
    description: str
    version: str
    labels: list[str]
    models: dict[str, dict[str, Any]]
    trainers: dict[str, Any]
    strategies: dict[str, Any]
    scoring: dict[str, Any]
    train_stats: dict[str, Any]
    datastore: dict[str, Any]


class Session(Answer):
    """An image that MONAI Label's clients have sent."""

    name: str
    path: str
    image: str
    meta: dict[str, Any]
    create_ts: int
    last_access_ts: int
    expiry: int


class NewSession(Answer):
    """A session and its name."""

    session_id: str
    session_info: Session


class LogIn(Answer):
    """Whether a token is asked for."""

    enabled: bool


class Token(Answer):
    """What a client sends with every request."""

    access_token: str
    token_type: Literal["bearer"]


class Valid(Answer):
    """That the token is right."""

    valid: bool
