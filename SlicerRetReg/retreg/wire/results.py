"""Registration results as JSON: transform, keypoints, quality and provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from retreg.errors import InputError
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality, Verdict
from retreg.wire import fields
from retreg.wire.transforms import decode_transform, encode_transform

MAX_KEYPOINTS = 100_000
MAX_NUMBERS = 1_000
MAX_NOTES = 50


def encode_keypoints(keypoints: Keypoints) -> dict[str, Any]:
    """JSON of keypoints."""
    return {
        "points": fields.rounded_points(keypoints.points),
        "weights": fields.rounded_weights(keypoints.weights),
        "inliers": keypoints.inliers.tolist(),
    }


def decode_keypoints(message: Any) -> Keypoints:
    """The keypoints in a message."""
    return Keypoints(
        fields.array(message, "points", (None, 3), MAX_KEYPOINTS),
        fields.array(message, "weights", (None,), MAX_KEYPOINTS),
        fields.flags(message, "inliers", MAX_KEYPOINTS),
    )


def encode_quality(quality: Quality) -> dict[str, Any]:
    """JSON of the quality numbers and the verdict."""
    numbers = {name: float(value) for name, value in quality.numbers.items()}
    return {"numbers": numbers, "verdict": quality.verdict, "reason": quality.reason}


def decode_quality(message: Any) -> Quality:
    """The quality in a message."""
    verdicts: dict[str, Verdict] = {name: name for name in get_args(Verdict)}
    verdict = fields.text(message, "verdict")
    if verdict not in verdicts:
        raise InputError(f"The verdict {verdict!r} is not one of {', '.join(verdicts)}.")
    given = fields.mapping(message, "numbers")
    if len(given) > MAX_NUMBERS:
        raise InputError(f"More than {MAX_NUMBERS} quality numbers were sent.")
    numbers = {name: fields.number(given, name) for name in given}
    return Quality(numbers, verdicts[verdict], fields.text(message, "reason"))


def encode_result(result: RegistrationResult) -> dict[str, Any]:
    """JSON of a result; the fields backward and notes are left out where there are none."""
    backward = result.backward
    return {
        "transform": encode_transform(result.transform),
        "fixed_keypoints": encode_keypoints(result.fixed_keypoints),
        "moving_keypoints": encode_keypoints(result.moving_keypoints),
        "quality": encode_quality(result.quality),
        "provenance": dict(result.provenance),
        **({} if backward is None else {"backward": encode_transform(backward)}),
        **({"notes": list(result.notes)} if result.notes else {}),
    }


def decode_result(message: Any) -> RegistrationResult:
    """The result in a message; older servers send neither backward nor notes."""
    known = isinstance(message, Mapping) and message.get("backward") is not None
    return RegistrationResult(
        decode_transform(fields.mapping(message, "transform")),
        decode_keypoints(fields.mapping(message, "fixed_keypoints")),
        decode_keypoints(fields.mapping(message, "moving_keypoints")),
        decode_quality(fields.mapping(message, "quality")),
        dict(fields.mapping(message, "provenance")),
        decode_transform(fields.mapping(message, "backward")) if known else None,
        fields.texts(message, "notes", MAX_NOTES) if "notes" in message else (),
    )
