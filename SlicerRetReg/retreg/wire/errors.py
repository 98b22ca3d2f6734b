"""Errors across HTTP: {"error": slug, "message": sentence}, and back to the same exception."""

from __future__ import annotations

from typing import Any

from retreg.errors import (
    Cancelled,
    DegeneratePointsError,
    FileError,
    GeometryError,
    InputError,
    OptionError,
    RegistrationError,
    RetRegError,
    ServerError,
    TooLargeError,
)
from retreg.wire.fields import MAX_TEXT

SLUGS: dict[str, type[RetRegError]] = {
    "too-large": TooLargeError,  # before its base class
    "bad-file": FileError,
    "bad-geometry": GeometryError,
    "degenerate-points": DegeneratePointsError,
    "bad-option": OptionError,
    "bad-input": InputError,
    "no-transform": RegistrationError,
    "cancelled": Cancelled,
}
INPUT_STATUSES = (400, 413, 415, 422)


def error_slug(error: RetRegError) -> str:
    """The short name under which an exception travels."""
    for slug, kind in SLUGS.items():
        if isinstance(error, kind):
            return slug
    return "server"


def encode_error(slug: str, message: str) -> dict[str, Any]:
    """JSON of an error."""
    return {"error": slug, "message": message}


def raised_error(status: int, message: Any) -> RetRegError:
    """The exception for an error answer of a server; message is its parsed JSON, if any."""
    slug = message.get("error") if isinstance(message, dict) else None
    sentence = message.get("message") if isinstance(message, dict) else None
    if not isinstance(slug, str) or not isinstance(sentence, str):
        return ServerError(
            f"The server answered with the status {status} and no explanation; check that the "
            "address is that of a RetReg server."
        )
    fallback = InputError if status in INPUT_STATUSES else ServerError
    return SLUGS.get(slug, fallback)(sentence[:MAX_TEXT])
