"""`--option NAME=VALUE` of the verbs that run a model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from retreg.errors import OptionError
from retreg.messages import ModelInfo, Scalar
from retreg_server.registration.options import parsed_option

Given = Sequence[tuple[str, str]]


def add_option_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the argument; the parsed namespace has a list of pairs as `option`."""
    parser.add_argument(
        "--option", type=_pair, action="append", default=[], metavar="NAME=VALUE",
        help="an option of the model as listed by `retreg models`; may be given several times",
    )  # fmt: skip


def options_given(
    info: ModelInfo, given: Given, named: Mapping[str, Scalar] | None = None
) -> dict[str, Scalar]:
    """The options by name, with values of the types that the model expects.

    named: those that have an argument of their own, which are returned as well. Raises OptionError
    for an option that the model does not have, when a value cannot be read as a number or as true
    or false, and when an option is given twice and differently.
    """
    options = dict(named or {})
    for name, text in given:
        value = parsed_option(info, name, text)
        if options.setdefault(name, value) != value:
            raise OptionError(
                f"{name} was given twice, as {options[name]} and as {value}; give it once."
            )
    info.complete(options)  # says what is not known
    return options


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} was given; NAME=VALUE was expected")
    return name, value
