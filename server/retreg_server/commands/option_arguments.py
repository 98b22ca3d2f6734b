"""`--option NAME=VALUE` of the verbs that run a model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from retreg.errors import OptionError
from retreg.messages import ModelInfo, Option, Scalar
from retreg_server.registration.options import complete_options

Given = Sequence[tuple[str, str]]


def add_option_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the argument; the parsed namespace has a list of pairs as `option`."""
    parser.add_argument(
        "--option", type=_pair, action="append", default=[], metavar="NAME=VALUE",
        help="an option of the model as listed by `retreg models`; may be given several times",
    )  # fmt: skip


def options_given(info: ModelInfo, given: Given) -> dict[str, Scalar]:
    """The options by name, with values of the types that the model expects.

    Raises OptionError for an option that the model does not have, and when a value cannot be read
    as a number or as true or false.
    """
    known = {option.name: option for option in info.options}
    if any(name not in known for name, _ in given):
        complete_options(info, dict(given))  # says so
    return {name: _value(known[name], text) for name, text in given}


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} was given; NAME=VALUE was expected")
    return name, value


def _value(option: Option, text: str) -> Scalar:
    if isinstance(option.default, bool):
        if text.lower() not in ("true", "false"):
            raise OptionError(f"{option.name} = {text!r} was given; use true or false.")
        return text.lower() == "true"
    if isinstance(option.default, str):
        return text
    try:
        return float(text)
    except ValueError as error:
        raise OptionError(
            f"{option.name} = {text!r} was given; a number was expected."
        ) from error
