"""`retreg models`: what can be registered, and with which options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from retreg.messages import ModelInfo, Option
from retreg_server.serving.setting_sources import token

HELP = "list the models and their options"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("--server", metavar="URL", help="ask a server (default: this installation)")
    parser.add_argument("--token-file", type=Path, help="file with the token of the server")
    parser.add_argument("--ca-file", type=Path, help="PEM file with the authority of its TLS")


def run(args: argparse.Namespace) -> int:
    """Print the table of models. Raises ServerError when the server cannot be asked."""
    if args.server:
        from retreg.client import Client

        with Client(args.server, token(args.token_file), ca_file=args.ca_file) as client:
            models = client.models()
    else:
        from retreg_server.registration.registry import usable_models

        models = usable_models()
    sys.stdout.write(table(models) + "\n")
    return 0


def table(models: Sequence[ModelInfo]) -> str:
    """Name, title, images and transforms of each model, and its options below."""
    if not models:
        return "No model can be used here; `retreg doctor` tells why."
    rows = [("NAME", "IMAGES", "TRANSFORMS", "TITLE")]
    rows += [
        (model.name, ", ".join(model.kinds), ", ".join(model.produces), model.title)
        for model in models
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]
    for index in range(len(models), 0, -1):
        lines[index + 1 : index + 1] = [f"    {_line(each)}" for each in models[index - 1].options]
    return "\n".join(lines)


def _line(option: Option) -> str:
    if option.choices:
        values = " | ".join(option.choices)
    elif isinstance(option.default, bool):
        values = "true | false"
    else:
        low = "" if option.minimum is None else f"{option.minimum:g}"
        high = "" if option.maximum is None else f"{option.maximum:g}"
        values = f"{low}…{high}"
    return f"{option.name} = {option.default}  ({values})  {option.title}"
