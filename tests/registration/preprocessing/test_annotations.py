"""Grids, rasters, captions, watermarks and dirt that both pictures carry are no anatomy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import cv2
import numpy as np
import pytest

from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import RegistrationRequest
from retreg.quality import judge
from retreg.transforms import Affine
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.pair import PhantomPair
from retreg_server.registration.engine import register
from retreg_server.registration.fundus.auto import AutoFundus
from retreg_server.registration.model import Stages
from retreg_server.registration.preprocessing import annotations
from retreg_server.registration.preprocessing.annotations import PicturePair
from retreg_server.registration.quality.retina import PictureQuality

SIZE = 512
Draw = Callable[[np.ndarray], None]  # paints on an opacity map (h, w) float32


def _rings(opacity: np.ndarray, width: int = 2, shift: int = 0) -> None:
    middle = SIZE // 2 + shift, SIZE // 2 - shift
    for radius in (30, 85, 170):
        cv2.circle(opacity, middle, radius, 1.0, width, cv2.LINE_AA)
    for angle in np.radians([45, 135, 225, 315]):
        ends = (
            (round(middle[0] + r * np.cos(angle)), round(middle[1] + r * np.sin(angle)))
            for r in (30, 170)
        )
        cv2.line(opacity, *ends, 1.0, width, cv2.LINE_AA)


def _squares(opacity: np.ndarray, cells: int = 7) -> None:
    for place in np.linspace(60, SIZE - 60, cells).astype(int).tolist():
        cv2.line(opacity, (place, 60), (place, SIZE - 60), 1.0, 1)
        cv2.line(opacity, (60, place), (SIZE - 60, place), 1.0, 1)


def _scans(opacity: np.ndarray, slope: int = 0) -> None:
    for row in range(110, SIZE - 110, 22):
        cv2.line(opacity, (110, row), (SIZE - 110, row + slope), 1.0, 1, cv2.LINE_AA)


def _words(opacity: np.ndarray, words: str = "SAMPLE COPY", size: float = 1.2) -> None:
    drawn = np.zeros(opacity.shape, np.uint8)
    for row in range(60, SIZE, 60):
        place = (row // 4, row)
        cv2.putText(drawn, 2 * words, place, cv2.FONT_HERSHEY_SIMPLEX, size, 255, 3, cv2.LINE_AA)
    opacity[:] = drawn / 255


def _spots(opacity: np.ndarray) -> None:
    random = np.random.default_rng(5)
    for x, y, radius in random.integers((40, 40, 3), (SIZE - 40, SIZE - 40, 9), (60, 3)).tolist():
        cv2.circle(opacity, (x, y), radius, 1.0, -1)
    opacity[:] = cv2.GaussianBlur(opacity, (0, 0), 1.5)


def _frames(opacity: np.ndarray) -> None:
    for low, high in ((20, 490), (70, 430), (120, 330), (200, 380)):
        cv2.rectangle(opacity, (low, low + 10), (high, high - 20), 1.0, 2)


KINDS: dict[str, tuple[Draw, tuple[int, ...], float]] = {
    "white rings": (_rings, (255, 255, 255), 1.0),
    "thick yellow rings": (partial(_rings, width=4, shift=12), (255, 255, 0), 1.0),
    "faint black rings": (_rings, (0, 0, 0), 0.5),
    "green grid": (_squares, (0, 255, 0), 1.0),
    "fine white grid": (partial(_squares, cells=10), (255, 255, 255), 1.0),
    "level scans": (_scans, (0, 255, 255), 1.0),
    "oblique scans": (partial(_scans, slope=60), (255, 255, 255), 0.7),
    "watermark": (_words, (255, 255, 255), 0.35),
    "caption": (partial(_words, words="OD 45 deg 0815", size=0.8), (255, 255, 255), 1.0),
    "dirt": (_spots, (15, 10, 5), 0.7),
    "frames": (_frames, (0, 0, 0), 1.0),
    "grey rings": (_rings, (128, 128, 128), 1.0),
    "grey grid": (_squares, (128, 128, 128), 1.0),
}


def marked(picture: Image, kind: str) -> Image:
    draw, colour, strength = KINDS[kind]
    opacity = np.zeros((SIZE, SIZE), np.float32)
    draw(opacity)
    opacity *= strength
    colours = colour if picture.array.shape[0] == 3 else (float(np.mean(colour)),)
    layer = np.array(colours, np.float32)[:, None, None, None]
    mixed = picture.array * (1 - opacity) + layer * opacity
    return replace(picture, array=np.rint(mixed).astype(np.uint8))


@cache
def an_eye(seed: int, rotation_deg: float = 25.0, moving: str = "angiography") -> PhantomPair:
    return make_fundus_pair(
        seed, size=SIZE, rotation_deg=rotation_deg, elastic_px=0, shift=(0, 0), moving=moving
    )


def agrees(fixed: Image, moving: Image, transform: Affine) -> bool:
    """Whether the verdict on the transform is accept, both directions being consistent."""
    measured = PictureQuality(fixed, moving).measure(transform)
    consistent = {"folding": 0.0, "inconsistency": 0.0, "inverse_consistency_p95_mm": 0.0}
    return judge({**measured, **consistent})[0] == "accept"


@pytest.mark.parametrize("kind", KINDS)
def test_two_eyes_with_the_same_annotation_do_not_agree(kind):
    fixed, moving = marked(an_eye(4).fixed, kind), marked(an_eye(11).fixed, kind)
    assert not agrees(fixed, moving, Affine.identity())


@pytest.mark.parametrize("kind", ["grey rings", "grey grid"])
def test_nor_where_the_marks_are_darker_than_one_and_brighter_than_the_other(kind):
    bright, dark = an_eye(4).fixed, an_eye(11).fixed
    bright = replace(bright, array=(150 + 0.4 * bright.array).astype(np.uint8))
    dark = replace(dark, array=(0.4 * dark.array).astype(np.uint8))
    assert not agrees(marked(bright, kind), marked(dark, kind), Affine.identity())


def below_a_colour_map(picture: Image, seed: int, form: str) -> Image:
    """The picture below a half-opaque map, as of the retina's thickness."""
    random = np.random.default_rng(seed)
    rows, columns = np.indices((SIZE, SIZE)) - SIZE // 2
    distance = np.hypot(rows, columns)
    if form == "sectors":
        quarter = np.digitize(np.arctan2(rows, columns), [-np.pi / 2, 0, np.pi / 2])
        values = random.permutation(12)[4 * np.digitize(distance, [60, 120]) + quarter]
    else:
        cells = random.normal(size=(11, 11)).astype(np.float32)
        values = cv2.resize(cells, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    values = np.rint(255 * (values - values.min()) / np.ptp(values)).astype(np.uint8)
    colours = np.moveaxis(cv2.applyColorMap(values, cv2.COLORMAP_JET), -1, 0)[::-1, None]
    colours = colours if len(picture.array) == 3 else colours.mean(axis=0, keepdims=True)
    reach = np.maximum(abs(rows), abs(columns)) if form == "square" else distance
    opacity = 0.55 * (reach < 175)
    mixed = picture.array * (1 - opacity) + colours * opacity
    return replace(picture, array=np.rint(mixed).astype(np.uint8))


@pytest.mark.parametrize("form", ["disc", "square", "sectors"])
@pytest.mark.parametrize("seed", [1, 3, 8])
def test_nor_below_the_same_half_opaque_colour_map(seed, form):
    fixed, moving = (below_a_colour_map(an_eye(x).fixed, seed, form) for x in (4, 11))
    assert not agrees(fixed, moving, Affine.identity())


@pytest.mark.parametrize(("seed", "form"), [(4, "square"), (11, "sectors")])
def test_nor_below_it_in_colour_and_in_angiography(seed, form):
    fixed, moving = an_eye(4).fixed, an_eye(9).moving
    pictures = (below_a_colour_map(picture, seed, form) for picture in (fixed, moving))
    assert not agrees(*pictures, Affine.identity())


@pytest.mark.parametrize("kind", ["white rings", "watermark", "dirt"])
def test_nor_where_the_pictures_were_cut_and_saved_at_different_sizes(kind):
    fixed, moving = marked(an_eye(4).fixed, kind), marked(an_eye(11).fixed, kind)
    cut = moving.array[:, 0, 20:, 10:]
    height, width = (round(0.9 * n) for n in cut.shape[1:])
    small = np.stack([cv2.resize(c, (width, height), interpolation=cv2.INTER_AREA) for c in cut])
    cut_from_fixed = np.diag([width / cut.shape[2], height / cut.shape[1], 1.0, 1.0])
    cut_from_fixed[:2, 3] = cut_from_fixed[:2, :2] @ (-9.5, -19.5) - 0.5
    saved = Image(small[:, None], Grid.of_picture(width, height))
    assert not agrees(fixed, saved, Affine(cut_from_fixed))


@pytest.mark.parametrize("kind", KINDS)
def test_one_eye_turned_below_the_same_annotation_is_measured_by_its_vessels(kind):
    pair = an_eye(4)
    fixed, moving = marked(pair.fixed, kind), marked(pair.moving, kind)
    assert agrees(fixed, moving, pair.truth)
    assert not agrees(fixed, moving, Affine.identity())


@pytest.mark.parametrize("kind", ["white rings", "green grid", "watermark"])
def test_one_eye_turned_below_the_same_annotation_is_aligned(kind):
    pair = an_eye(4)
    options = AutoFundus.info.complete({})
    images = marked(pair.fixed, kind), marked(pair.moving, kind)
    found = AutoFundus().estimate(*images, options, Stages()).transform
    missed = found(pair.landmarks) - pair.truth(pair.landmarks)
    assert np.linalg.norm(missed, axis=1).mean() < 2


def below_wide_shapes(picture: Image, seed: int) -> Image:
    """The picture with five white polygons on it, as of stickers and blinded names."""
    random, opacity = np.random.default_rng(seed), np.zeros((SIZE, SIZE), np.float32)
    for centre in random.integers(60, SIZE - 60, (5, 2)):
        corners = (centre + random.integers(-70, 70, (5, 2))).astype(np.int32)
        cv2.fillConvexPoly(opacity, cv2.convexHull(corners), 1.0, cv2.LINE_AA)
    mixed = picture.array * (1 - opacity) + 255 * opacity
    return replace(picture, array=np.rint(mixed).astype(np.uint8))


@pytest.mark.parametrize("seed", [0, 1, 3, 5])
def test_wide_shapes_that_still_overlap_after_a_small_move_have_not_met(seed):
    """The second picture of the eye moved by 12 pixels, the shapes did not."""
    pair = make_fundus_pair(
        4 + seed, size=SIZE, rotation_deg=0, elastic_px=0, shift=(0.02, 0.015), moving="colour"
    )
    fixed, moving = (below_wide_shapes(picture, seed) for picture in (pair.fixed, pair.moving))
    assert agrees(fixed, moving, pair.truth)
    stranger = below_wide_shapes(an_eye(20 + seed).fixed, seed)
    assert not agrees(fixed, stranger, Affine.identity())


@pytest.mark.parametrize("kind", ["level scans", "fine white grid", "caption"])
def test_one_eye_moved_a_little_below_the_same_annotation_is_aligned(kind):
    """Vessels that nearly meet are no reason to take lines for vessels of one eye at rest."""
    pair = make_fundus_pair(
        4, size=SIZE, rotation_deg=0, scale=1.0, elastic_px=0, shift=(0.006, 0.004),
        moving="colour",
    )  # fmt: skip
    options = AutoFundus.info.complete({})
    images = marked(pair.fixed, kind), marked(pair.moving, kind)
    found = AutoFundus().estimate(*images, options, Stages()).transform
    missed = found(pair.landmarks) - pair.truth(pair.landmarks)
    assert np.linalg.norm(missed, axis=1).mean() < 1.2


def saved_as_jpeg(picture: Image) -> Image:
    stored = cv2.imencode(".jpg", np.moveaxis(picture.array[:, 0], 0, -1), [1, 50])[1]
    return replace(picture, array=np.moveaxis(cv2.imdecode(stored, 1), -1, 0)[:, None])


def brighter(picture: Image) -> Image:
    return replace(picture, array=(255 * (picture.array / 255.0) ** 0.6).astype(np.uint8))


@pytest.mark.parametrize("changed", [lambda picture: picture, saved_as_jpeg, brighter])
def test_a_copy_of_a_picture_is_no_annotation(changed):
    fixed = an_eye(4).fixed
    copy = changed(fixed)
    assert not PicturePair(fixed, copy).are_marked
    assert agrees(fixed, copy, Affine.identity())


@pytest.mark.parametrize("moving", ["colour", "angiography"])
@pytest.mark.parametrize("seed", [2, 5])
def test_two_pictures_of_one_eye_in_one_position_share_no_annotation(seed, moving):
    pair = an_eye(seed, 0.0, moving)
    assert not PicturePair(pair.fixed, pair.moving).are_marked
    assert agrees(pair.fixed, pair.moving, pair.truth)


def test_pictures_without_marks_and_with_marks_on_one_of_them_stay_as_they_are():
    pair = an_eye(4)
    for fixed in (pair.fixed, marked(pair.fixed, "white rings")):
        both = PicturePair(fixed, pair.moving)
        assert both.beside is both.stored
        assert [each.image for each in both.stored] == [fixed, pair.moving]


def test_marks_are_painted_over_beyond_the_field_of_view_too():
    """The rings lie so that two of them cross the rim."""
    pair, beyond = an_eye(4), np.zeros((SIZE, SIZE), np.float32)
    _rings(beyond, 2, 110)
    fixed, moving = (
        replace(x, array=np.maximum(x.array, np.rint(255 * beyond)).astype(np.uint8))
        for x in (pair.fixed, pair.moving)
    )
    beside = PicturePair(fixed, moving).beside[0].image.array
    dark = (pair.fixed.array.max(axis=0)[0] < 30).astype(np.uint8)
    outside = (beyond > 0.5) & (cv2.erode(dark, np.ones((25, 25))) > 0)
    assert outside.sum() > 200
    assert np.median(beside[:, 0, outside]) < 30


def test_only_the_marks_are_painted_over():
    pair = an_eye(4)
    fixed = marked(pair.fixed, "white rings")
    beside = PicturePair(fixed, marked(pair.moving, "white rings")).beside[0].image
    wrong = np.abs(beside.array.astype(float) - pair.fixed.array).max(axis=0)
    before = np.abs(fixed.array.astype(float) - pair.fixed.array).max(axis=0)
    assert (wrong == 0).mean() > 0.7
    assert wrong[before > 0].mean() < 0.2 * before[before > 0].mean()
    assert beside.array.dtype == fixed.array.dtype


def test_model_and_verdict_look_for_marks_once(monkeypatch):
    pair, looks = an_eye(4), []
    look = annotations._where_marked
    monkeypatch.setattr(annotations, "_where_marked", lambda *both: looks.append(1) or look(*both))
    found = register(RegistrationRequest(pair.fixed, pair.moving, "auto-fundus"))
    assert found.quality.verdict == "accept"
    assert len(looks) == 1
