"""The wire: what goes in comes out, and nothing else is let in."""

from __future__ import annotations

import hashlib
import json
import math
import zlib

import numpy as np
import pytest

from retreg import wire
from retreg.about import About
from retreg.errors import (
    DegeneratePointsError,
    GeometryError,
    InputError,
    OptionError,
    RegistrationError,
    ServerError,
    TooLargeError,
)
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, ModelInfo, Option, RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Affine, Chain, DisplacementField, ThinPlateSpline, Transform

MIB = 2**20
OBLIQUE = np.array([[0.8, 0.6, 0, -20], [-0.6, 0.8, 0, 5], [0, 0, -2.5, 7], [0, 0, 0, 1.0]])


def there_and_back(transform: Transform) -> Transform:
    return wire.decode_transform(wire.loads(wire.dumps(wire.encode_transform(transform))))


def some_points(n: int = 50) -> np.ndarray:
    return np.random.default_rng(0).uniform(-100, 100, (n, 3))


def a_field(amplitude: float) -> DisplacementField:
    vectors = np.random.default_rng(4).uniform(-1, 1, (3, 5, 4, 6)) * amplitude
    return DisplacementField(vectors, Grid((6, 4, 5), OBLIQUE))


def an_affine() -> Affine:
    matrix = np.eye(4)
    matrix[:3] += np.random.default_rng(5).normal(0, 0.1, (3, 4))
    return Affine(matrix)


def test_an_affine_survives_exactly():
    affine = an_affine()
    np.testing.assert_array_equal(
        there_and_back(affine).moving_from_fixed, affine.moving_from_fixed
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.3, math.inf])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kernel", ["r", "r2logr"])
def test_a_spline_survives_with_its_smoothing_weights_and_kernel(smoothing, weighted, kernel):
    points = some_points()
    moving = points + 5 * np.sin(points[:, ::-1] / 30)
    weights = np.random.default_rng(6).uniform(1e-6, 2, 50) if weighted else None
    spline = ThinPlateSpline(points, moving, smoothing, weights, kernel)
    back = there_and_back(spline)
    assert back.smoothing == smoothing
    assert back.kernel == kernel
    assert (back.weights is None) == (weights is None)
    elsewhere = some_points(500) * 1.3
    np.testing.assert_allclose(back(elsewhere), spline(elsewhere), atol=1e-4)


def test_a_spline_of_512_points_takes_less_than_40_kilobytes():
    points = some_points(512)
    text = wire.dumps(wire.encode_transform(ThinPlateSpline(points, points + 1)))
    assert 20_000 < len(text) < 40_000


@pytest.mark.parametrize(
    ("amplitude", "encoding"),
    [(0.004, "int16"), (327, "int16"), (4000, "float32"), (1e5, "float32"), (5e6, "float64")],
)
def test_a_field_is_at_most_five_micrometres_off(amplitude, encoding):
    field = a_field(amplitude)
    message = wire.encode_transform(field)
    assert message["encoding"] == encoding
    back = there_and_back(field)
    assert np.abs(back.vectors_mm - field.vectors_mm).max() <= 0.005 + 1e-9
    np.testing.assert_array_equal(back.grid.world_from_index, field.grid.world_from_index)
    assert back.grid.size == field.grid.size


def test_a_field_of_int16_is_little_endian_hundredths_in_the_order_3_k_j_i():
    vectors = np.zeros((3, 1, 1, 2))
    vectors[0, 0, 0, 1] = 1.0
    message = wire.encode_transform(DisplacementField(vectors, Grid((2, 1, 1), np.eye(4))))
    assert message["data"] == "AABkAAAAAAAAAAAA"  # 0, 100, 0, 0, 0, 0


def test_a_chain_survives_in_its_order():
    chain = Chain((an_affine(), a_field(3.0), an_affine()))
    points = some_points()
    np.testing.assert_allclose(there_and_back(chain)(points), chain(points), atol=0.01)


def test_a_deeply_nested_chain_is_refused():
    chain: Transform = an_affine()
    for _ in range(6):
        chain = Chain((chain,))
    with pytest.raises(InputError, match="nested"):
        there_and_back(chain)


def test_a_transform_of_an_unknown_class_cannot_be_sent():
    with pytest.raises(InputError, match="cannot be sent"):
        wire.encode_transform(lambda points: points)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"type": "magic"}, InputError),
        ({"type": 3}, InputError),
        ({"moving_from_fixed": [[1, 0, 0, 0]] * 4}, GeometryError),
        ({"moving_from_fixed": [[1, 0], [0, 1]]}, InputError),
        ({"moving_from_fixed": [["1", "0", "0", "0"]] * 4}, InputError),
        ({"moving_from_fixed": None}, InputError),
        ({"moving_from_fixed": [[math.nan] * 4] * 4}, InputError),
    ],
)
def test_a_wrong_affine_is_refused_in_words(change, error):
    message = wire.encode_transform(Affine.identity()) | change
    with pytest.raises(error, match=r"\.$"):
        wire.decode_transform(wire.loads(wire.dumps(message)))


@pytest.mark.parametrize(
    "change",
    [
        {"data": "AAAA"},
        {"data": 3},
        {"encoding": "int8"},
        {"data": "!" * 960},
        {"grid": {"size": [2, 2], "world_from_index": np.eye(4).tolist()}},
        {"grid": {"size": [6, 4, 5.0], "world_from_index": np.eye(4).tolist()}},
        {"grid": {"size": [99999, 99999, 99999], "world_from_index": np.eye(4).tolist()}},
        {"grid": {"size": [6, 4, True], "world_from_index": np.eye(4).tolist()}},
    ],
)
def test_a_wrong_field_is_refused_in_words(change):
    message = wire.encode_transform(a_field(1.0))
    assert len(message["data"]) == 960
    with pytest.raises(InputError, match=r"\.$"):
        wire.decode_transform(message | change)


def test_points_on_a_line_are_refused_as_degenerate():
    points = np.outer(np.arange(5.0), [1, 2, 3]).tolist()
    message = {
        "type": "tps", "fixed_points": points, "moving_points": points,
        "weights": None, "smoothing": 0.0, "kernel": "r",
    }  # fmt: skip
    with pytest.raises(DegeneratePointsError):
        wire.decode_transform(message)


def test_a_result_survives():
    points = some_points()
    keypoints = Keypoints(points, np.linspace(0, 1, 50), np.arange(50) % 2 == 0)
    quality = Quality({"nmi": 1.2, "ratio": math.inf, "unknown": math.nan}, "check", "Look at it.")
    provenance = {"model": "m", "options": {"smoothing": math.inf}, "seconds": {"net": 0.5}}
    backward = an_affine().inverse
    result = RegistrationResult(an_affine(), keypoints, keypoints, quality, provenance, backward)
    text = wire.dumps(wire.encode_result(result))
    json.loads(text, parse_constant=lambda literal: pytest.fail(f"{literal} is not JSON"))
    back = wire.decode_result(wire.loads(text))
    np.testing.assert_allclose(back.fixed_keypoints.points, points, atol=6e-7)
    np.testing.assert_allclose(back.moving_keypoints.weights, keypoints.weights, rtol=1e-6)
    np.testing.assert_array_equal(back.fixed_keypoints.inliers, keypoints.inliers)
    assert back.quality.numbers["ratio"] == math.inf
    assert math.isnan(back.quality.numbers["unknown"])
    assert (back.quality.verdict, back.quality.reason) == ("check", "Look at it.")
    assert back.provenance == provenance
    np.testing.assert_array_equal(back.backward.moving_from_fixed, backward.moving_from_fixed)


@pytest.mark.parametrize("absent", ["left out", "null"])
def test_a_result_of_an_older_server_has_no_backward_transform(absent):
    none = Keypoints(np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool))
    message = wire.encode_result(
        RegistrationResult(an_affine(), none, none, Quality({}, "fail", "No."), {})
    )
    assert "backward" not in message
    if absent == "null":
        message["backward"] = None
    assert wire.decode_result(message).backward is None


def test_a_result_without_keypoints_survives():
    none = Keypoints(np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool))
    result = RegistrationResult(an_affine(), none, none, Quality({}, "fail", "No."), {})
    back = wire.decode_result(wire.loads(wire.dumps(wire.encode_result(result))))
    assert len(back.fixed_keypoints) == 0


def test_model_descriptions_survive_with_the_types_of_their_defaults():
    options = (
        Option("smoothing", "Smoothing", 1.0, minimum=0.0),
        Option("count", "Count", 3, minimum=1, maximum=9),
        Option("fast", "Fast", True),
        Option("transform", "Transform", "tps", choices=("tps", "affine")),
    )
    models = (
        ModelInfo("a", "A", ("picture",), ("tps", "affine"), options, "Someone 1999", "MIT", "ab"),
        ModelInfo("b", "B", ("picture", "volume"), ()),
    )
    # Languages without integers write 1.0 as 1.
    text = wire.dumps(wire.encode_models(models)).replace(b'"default":1.0', b'"default":1')
    back = wire.decode_models(wire.loads(text))
    assert back == models
    assert [type(o.default) for o in back[0].options] == [float, int, bool, str]


@pytest.mark.parametrize(
    "text",
    ["NaN", "[Infinity]", '{"a": -Infinity}', "{", "", "[" * 100_000, b"\xff\xfe", "1" * 5000],
)
def test_what_is_not_strict_json_is_refused(text):
    with pytest.raises(InputError, match="not valid JSON"):
        wire.loads(text)


@pytest.mark.parametrize("encoding", wire.ENCODINGS)
@pytest.mark.parametrize("dtype", wire.DTYPES)
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_image_survives_exactly(encoding, dtype, order):
    rng = np.random.default_rng(7)
    array = rng.integers(0, 100, (3, 4, 5, 6)).astype(np.dtype(dtype).newbyteorder(order))
    image = Image(array, Grid((6, 5, 4), OBLIQUE))
    text, body = wire.encode_image(image, encoding)
    back = wire.decode_image(wire.decode_header(text, MIB), body)
    np.testing.assert_array_equal(back.array, array)
    assert back.array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(back.grid.world_from_index, OBLIQUE)
    assert not back.array.flags.writeable


def test_an_image_that_is_a_strided_view_survives():
    array = np.arange(2 * 4 * 6 * 8, dtype=np.int16).reshape(2, 4, 6, 8)[:1, ::2, ::-1, 1::3]
    image = Image(array, Grid((3, 6, 2), np.eye(4)))
    text, body = wire.encode_image(image)
    np.testing.assert_array_equal(
        wire.decode_image(wire.decode_header(text, MIB), body).array, array
    )


def test_the_identity_body_is_raw_little_endian_voxels():
    image = Image(np.array([[[[1, 256, -1]]]], ">i2"), Grid((3, 1, 1), np.eye(4)))
    assert wire.encode_image(image)[1] == b"\x01\x00\x00\x01\xff\xff"


def test_shuffled_voxels_are_deflated_byte_planes():
    image = Image(np.array([[[[1, 256, -1]]]], "<i2"), Grid((3, 1, 1), np.eye(4)))
    body = wire.encode_image(image, "zlib+shuffle")[1]
    assert zlib.decompress(body) == b"\x01\x00\xff" + b"\x00\x01\xff"


def test_the_address_is_the_sum_over_header_line_feed_and_body():
    text, body = wire.encode_image(Image(np.zeros((1, 1, 2, 2), np.uint8), Grid.of_picture(2, 2)))
    expected = hashlib.sha256(text.encode() + b"\n" + body).hexdigest()
    assert wire.image_address(text, body) == expected


def test_equal_voxels_with_another_geometry_have_another_address():
    array = np.zeros((1, 2, 2, 2), np.uint8)
    moved = np.eye(4)
    moved[0, 3] = 1e-3
    addresses = {
        wire.image_address(*wire.encode_image(Image(array, Grid((2, 2, 2), matrix))))
        for matrix in (np.eye(4), moved)
    }
    assert len(addresses) == 2


def header(**changes) -> str:
    message = {
        "size": [4, 3, 2], "world_from_index": np.eye(4).tolist(), "channels": 1,
        "dtype": "uint16", "encoding": "identity",
    }  # fmt: skip
    return json.dumps(message | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": [0, 3, 2]},
        {"size": [4, 3]},
        {"size": [4.5, 3, 2]},
        {"size": ["4", 3, 2]},
        {"size": [20000, 20000, 20000]},
        {"size": [10**30, 1, 1]},
        {"world_from_index": np.zeros((4, 4)).tolist()},
        {"world_from_index": [[1e300] * 4] * 4},
        {"world_from_index": "eye"},
        {"channels": 0},
        {"channels": 5},
        {"channels": True},
        {"dtype": "object"},
        {"dtype": "float128"},
        {"dtype": "<i2"},
        {"dtype": ["int16"]},
        {"encoding": "gzip"},
        {"encoding": None},
    ],
)
def test_a_wrong_header_is_refused_in_words(changes):
    with pytest.raises(InputError, match=r"\.$"):
        wire.decode_header(header(**changes), MIB)


@pytest.mark.parametrize("name", ["size", "world_from_index", "channels", "dtype", "encoding"])
def test_a_header_needs_every_field(name):
    message = json.loads(header())
    del message[name]
    with pytest.raises(InputError, match=name):
        wire.decode_header(json.dumps(message), MIB)


def test_geometry_with_nan_is_refused():
    text = header().replace("1.0", "NaN", 1)
    with pytest.raises(InputError):
        wire.decode_header(text, MIB)


@pytest.mark.parametrize("length", [0, 47, 49])
def test_a_body_of_the_wrong_length_is_refused(length):
    with pytest.raises(InputError, match="48"):
        wire.decode_image(wire.decode_header(header(), MIB), bytes(length))


def test_a_bomb_is_not_inflated():
    import tracemalloc

    body = zlib.compress(bytes(200 * MIB), 9)
    declared = wire.decode_header(header(encoding="zlib+shuffle"), MIB)
    tracemalloc.start()
    with pytest.raises(InputError, match="does not inflate"):
        wire.decode_image(declared, body)
    assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        zlib.compress(bytes(48))[:-1],
        zlib.compress(bytes(48)) + b"more",
        zlib.compress(bytes(47)),
    ],
)
def test_a_deflated_body_must_be_whole_and_nothing_more(body):
    with pytest.raises(InputError):
        wire.decode_image(wire.decode_header(header(encoding="zlib+shuffle"), MIB), body)


def test_a_header_cut_anywhere_is_refused():
    text = header()
    for end in range(len(text)):
        with pytest.raises(InputError):
            wire.decode_header(text[:end], MIB)


@pytest.mark.parametrize("error", [OptionError, RegistrationError, GeometryError, InputError])
def test_an_exception_keeps_its_class_and_sentence_across_http(error):
    message = wire.encode_error(wire.error_slug(error("Because.")), "Because.")
    back = wire.raised_error(422, message)
    assert type(back) is error
    assert str(back) == "Because."


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (500, {"error": "internal", "message": "It broke."}, ServerError),
        (401, {"error": "unauthorised", "message": "No."}, ServerError),
        (413, {"error": "too-large", "message": "No."}, TooLargeError),
        (502, None, ServerError),
        (400, ["odd"], ServerError),
        (400, {"error": 3, "message": {}}, ServerError),
    ],
)
def test_other_answers_become_server_or_input_errors(status, message, kind):
    assert type(wire.raised_error(status, message)) is kind


@pytest.mark.parametrize("number", [1e308, -1e13, -(2**63)])
def test_points_of_absurd_size_are_refused_before_arithmetic_overflows(number):
    points = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, number]]
    message = {"type": "tps", "fixed_points": points, "moving_points": points, "smoothing": 0.0}
    with pytest.raises(InputError, match="usual size"):
        wire.decode_transform(message | {"weights": None, "kernel": "r"})


SAYS = About("scan", ("its slices are few.",), "R", "SCT:12", "BRAIN", ("A1", "DOE JANE", "1950"))


def test_what_an_image_says_travels_without_the_patient():
    image = Image(np.zeros((1, 1, 2, 3), np.uint8), Grid.of_picture(3, 2), SAYS)
    text, body = wire.encode_image(image)
    assert "A1" not in text
    assert "DOE" not in text
    back = wire.decode_image(wire.decode_header(text, MIB), body)
    assert back.about == About("scan", ("its slices are few.",), "R", "SCT:12", "BRAIN")


def test_an_image_that_says_nothing_has_the_header_it_always_had():
    image = Image(np.zeros((1, 1, 2, 3), np.uint8), Grid.of_picture(3, 2))
    text, _ = wire.encode_image(image)
    assert "about" not in text
    assert wire.decode_header(text, MIB).about == About()


def test_a_header_stays_short_however_much_there_is_to_say():
    about = About("scan", tuple("x" * 5000 for _ in range(50)), "R", "y" * 900)
    image = Image(np.zeros((1, 1, 2, 3), np.uint8), Grid.of_picture(3, 2), about)
    text, _ = wire.encode_image(image)
    assert len(text) < 4096
    assert len(wire.decode_header(text, MIB).about.notes) == 6


@pytest.mark.parametrize(
    "about",
    [
        {"content": "banana"},
        {"content": 1},
        {"notes": "text"},
        {"notes": ["x"] * 7},
        {"notes": [1]},
        {"tokens": "text"},
        {"tokens": ["a"] * 4},
        {"laterality": "R" * 65},
        {"region": "a\nb"},
        [],
    ],
)
def test_nonsense_about_an_image_is_refused(about):
    image = Image(np.zeros((1, 1, 2, 3), np.uint8), Grid.of_picture(3, 2))
    message = {**json.loads(wire.image_header(image)), "about": about}
    with pytest.raises(InputError):
        wire.decode_header(json.dumps(message), MIB)


def test_the_notes_of_a_result_travel():
    points = Keypoints(np.zeros((1, 3)), np.ones(1), np.ones(1, bool))
    result = RegistrationResult(
        an_affine(), points, points, Quality({}, "accept", "Right."), {}, None, ("One.", "Two.")
    )
    message = wire.loads(wire.dumps(wire.encode_result(result)))
    assert wire.decode_result(message).notes == ("One.", "Two.")
    del message["notes"]
    assert wire.decode_result(message).notes == ()
