"""Strict JSON: no NaN or Infinity literals, which other languages refuse to read.

Numbers without a JSON form travel as the reserved strings "Infinity", "-Infinity" and "NaN".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from retreg.errors import InputError

RESERVED = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


def dumps(message: Any) -> bytes:
    """Compact JSON text of a message made of mappings, lists, strings, numbers and None."""
    try:
        text = json.dumps(message, allow_nan=False, separators=(",", ":"))
    except ValueError:
        spelled = _replaced(message, _spelled)
        text = json.dumps(spelled, allow_nan=False, separators=(",", ":"))
    return text.encode("ascii")


def loads(text: bytes | bytearray | str) -> Any:
    """The message in a JSON text. Raises InputError when it is not strict JSON."""
    try:
        whole = text if isinstance(text, str) else text.decode("utf-8")
        message = json.loads(whole, parse_constant=_refuse_literal)
        if any(f'"{word}"' in whole for word in RESERVED):
            message = _replaced(message, _unspelled)
    except (ValueError, RecursionError) as error:
        raise InputError("The message is not valid JSON; send strict JSON in UTF-8.") from error
    return message


def _refuse_literal(literal: str) -> None:
    raise ValueError(literal)


def _spelled(value: Any) -> Any:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _unspelled(value: Any) -> Any:
    return RESERVED.get(value, value) if isinstance(value, str) else value


def _replaced(message: Any, replace: Callable[[Any], Any]) -> Any:
    """The same message with every leaf passed through replace."""
    if isinstance(message, Mapping):
        return {key: _replaced(value, replace) for key, value in message.items()}
    if isinstance(message, (list, tuple)):
        return [_replaced(value, replace) for value in message]
    return replace(message)
