"""Strict readers for the fields of a message: the right JSON type, or a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from retreg.errors import InputError

MAX_TEXT = 4096
MAX_INTEGER = 2**53
MAX_MAGNITUDE = 1e12  # of coordinates in mm; what is larger only makes arithmetic overflow


def take(message: Any, name: str) -> Any:
    """The field of a JSON object. Raises InputError when there is none."""
    if not isinstance(message, Mapping) or name not in message:
        raise InputError(f"The message has no field {name!r}, which was expected here.")
    return message[name]


def mapping(message: Any, name: str) -> Mapping[str, Any]:
    """The field as a JSON object."""
    value = take(message, name)
    if not isinstance(value, Mapping):
        raise InputError(f"The field {name!r} is not a JSON object, which was expected.")
    return value


def sequence(message: Any, name: str, at_most: int) -> list[Any]:
    """The field as a JSON list of limited length."""
    value = take(message, name)
    if not isinstance(value, list) or len(value) > at_most:
        raise InputError(f"The field {name!r} is not a list of at most {at_most} entries.")
    return value


def text(message: Any, name: str) -> str:
    """The field as a string of limited length."""
    value = take(message, name)
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise InputError(
            f"The field {name!r} is not a text of at most {MAX_TEXT} characters."
        )
    return value


def texts(message: Any, name: str, at_most: int) -> tuple[str, ...]:
    """The field, a list of strings of limited length, as a tuple."""
    return tuple(text({name: entry}, name) for entry in sequence(message, name, at_most))


def number(message: Any, name: str) -> float:
    """The field as a float; infinity and NaN are allowed in their reserved spelling."""
    value = take(message, name)
    if not is_number(value):
        raise InputError(f"The field {name!r} is not a number, which was expected.")
    return float(value)


def integer(message: Any, name: str) -> int:
    """The field as an integer."""
    value = take(message, name)
    if not is_number(value) or not isinstance(value, int):
        raise InputError(f"The field {name!r} is not an integer, which was expected.")
    return value


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number that fits a float without loss of its integer part."""
    if isinstance(value, bool):
        return False
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= MAX_INTEGER)


def array(message: Any, name: str, shape: tuple[int | None, ...], at_most: int) -> np.ndarray:
    """The field, nested lists of numbers up to MAX_MAGNITUDE, as float64; None = any length.

    The first axis may have at_most entries.
    """
    value = sequence(message, name, at_most)
    if not value and shape[0] is None:
        return np.zeros((0, *(n or 0 for n in shape[1:])))
    try:
        given = np.array(value)
    except ValueError:
        given = np.array(None)
    fits = given.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, given.shape, strict=True)
    )
    is_numeric = fits and given.dtype.kind in "if"
    if not is_numeric or not (np.abs(given.astype(np.float64)) <= MAX_MAGNITUDE).all():
        wanted = " x ".join("n" if n is None else str(n) for n in shape)
        raise InputError(
            f"The field {name!r} is not a list of {wanted} finite numbers of usual size."
        )
    return given.astype(np.float64)


def flags(message: Any, name: str, at_most: int) -> np.ndarray:
    """The field, a list of true and false, as a bool array (n,)."""
    value = sequence(message, name, at_most)
    if not all(isinstance(flag, bool) for flag in value):
        raise InputError(f"The field {name!r} is not a list of true and false.")
    return np.array(value, dtype=bool)


def rounded_weights(weights: np.ndarray) -> list[float]:
    """Weights with seven significant digits, which keeps small ones above zero."""
    return [float(f"{weight:.7g}") for weight in np.asarray(weights, dtype=np.float64)]


def rounded_points(points: np.ndarray) -> list[list[float]]:
    """Points (n, 3) to the nearest 1e-6 mm."""
    rows: list[list[float]] = np.round(np.asarray(points, dtype=np.float64), 6).tolist()
    return rows
