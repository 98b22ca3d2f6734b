"""Model descriptions as JSON, from which a client draws its controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from retreg.errors import InputError
from retreg.messages import ImageKind, ModelInfo, Option, Scalar
from retreg.wire import fields

MAX_MODELS = 1_000
MAX_OPTIONS = 100


def encode_models(models: Sequence[ModelInfo]) -> dict[str, Any]:
    """JSON of the models that a server offers, in its order."""
    return {"models": [_encode_model(model) for model in models]}


def decode_models(message: Any) -> tuple[ModelInfo, ...]:
    """The models in a message."""
    return tuple(_decode_model(each) for each in fields.sequence(message, "models", MAX_MODELS))


def _encode_model(model: ModelInfo) -> dict[str, Any]:
    return {
        "name": model.name,
        "title": model.title,
        "kinds": list(model.kinds),
        "produces": list(model.produces),
        "options": [_encode_option(option) for option in model.options],
        "citation": model.citation,
        "licence": model.licence,
        "weights_sha256": model.weights_sha256,
        "subject": model.subject,
    }


def _decode_model(message: Any) -> ModelInfo:
    known: dict[str, ImageKind] = {kind: kind for kind in get_args(ImageKind)}
    kinds = _texts(message, "kinds")
    if not set(kinds) <= set(known):
        raise InputError(f"The kinds {kinds} are not known; use {' or '.join(known)}.")
    options = fields.sequence(message, "options", MAX_OPTIONS)
    return ModelInfo(
        fields.text(message, "name"),
        fields.text(message, "title"),
        tuple(known[kind] for kind in kinds),
        _texts(message, "produces"),
        tuple(_decode_option(option) for option in options),
        fields.text(message, "citation"),
        fields.text(message, "licence"),
        fields.text(message, "weights_sha256"),
        fields.text(message, "subject") if "subject" in message else "",
    )


def _encode_option(option: Option) -> dict[str, Any]:
    return {
        "name": option.name,
        "title": option.title,
        "type": _option_type(option.default),
        "default": option.default,
        "choices": list(option.choices),
        "minimum": option.minimum,
        "maximum": option.maximum,
        "families": list(option.families),
    }


def _decode_option(message: Any) -> Option:
    return Option(
        fields.text(message, "name"),
        fields.text(message, "title"),
        _default(message),
        _texts(message, "choices"),
        _bound(message, "minimum"),
        _bound(message, "maximum"),
        _texts(message, "families") if "families" in message else (),
    )


def _option_type(default: Scalar) -> str:
    """The JSON name of a type: languages without integers could not tell 1 from 1.0."""
    if isinstance(default, bool):
        return "boolean"
    if isinstance(default, int):
        return "integer"
    return "number" if isinstance(default, float) else "choice"


def _default(message: Any) -> Scalar:
    kind = fields.text(message, "type")
    if kind == "number":
        return fields.number(message, "default")
    if kind == "integer":
        return fields.integer(message, "default")
    if kind == "choice":
        return fields.text(message, "default")
    default = fields.take(message, "default")
    if kind != "boolean" or not isinstance(default, bool):
        raise InputError(f"The option type {kind!r} does not go with its default {default!r}.")
    return default


def _bound(message: Any, name: str) -> float | None:
    return None if fields.take(message, name) is None else fields.number(message, name)


def _texts(message: Any, name: str) -> tuple[str, ...]:
    given = fields.sequence(message, name, MAX_OPTIONS)
    return tuple(fields.text({name: each}, name) for each in given)
