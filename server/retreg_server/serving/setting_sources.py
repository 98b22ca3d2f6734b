"""Where settings come from: flags before the environment before one TOML file before defaults."""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from retreg.errors import InputError
from retreg_server.dicom.archives import Archive, archives_from
from retreg_server.dicom.peers import peers_from
from retreg_server.serving.settings import Settings

PREFIX = "RETREG_"
CONFIG = "config"
TOKEN_FILE = "token_file"
ARCHIVES = "archives"
PEERS = ("senders", "destinations", "rules")
SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Setting:
    """One field of Settings, as the outside sees it."""

    name: str
    kind: Any
    meaning: str
    default: Any

    @property
    def flag(self) -> str:
        """Such as --queue-size."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Such as RETREG_QUEUE_SIZE."""
        return PREFIX + self.name.upper()

    def parsed(self, given: Any) -> Any:
        """The value of a text, or of a value from TOML. Raises InputError."""
        try:
            return _converted(self.kind, given)
        except (ValueError, TypeError, KeyError, OverflowError):
            raise InputError(
                f"The setting {self.name} cannot be {given!r}; it is {self.meaning}."
            ) from None


def all_settings() -> Iterator[Setting]:
    """Every setting but the token, archives and peers: secrets are never on a command line."""
    hints = get_type_hints(Settings, include_extras=True)
    for each in fields(Settings):
        if each.name not in ("token", ARCHIVES, "peers"):
            kind, meaning = get_args(hints[each.name])
            yield Setting(each.name, kind, meaning, each.default)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One flag for each setting, and one for the file with the others."""
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings")
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="file with the token that clients must send (default: the variable RETREG_TOKEN)",
    )
    for each in all_settings():
        default = _text(each.default)
        parser.add_argument(
            each.flag,
            metavar=each.name.rpartition("_")[2].upper(),
            help=each.meaning + (f" (default: {default})" if default else ""),
        )


def settings_from(args: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """The settings of a command line. Raises InputError."""
    in_file = _file(args.config or environment.get(PREFIX + CONFIG.upper()))
    values: dict[str, Any] = {}
    for each in all_settings():
        for given in (
            getattr(args, each.name),
            environment.get(each.variable) or None,
            in_file.pop(each.name, None),
        ):
            if given is not None:
                values[each.name] = each.parsed(given)
                break
    named = environment.get(PREFIX + TOKEN_FILE.upper()), in_file.pop(TOKEN_FILE, None)
    archives = archives_from(in_file.pop(ARCHIVES, {}))
    peers = peers_from(*(in_file.pop(name, {}) for name in PEERS))
    token_file = args.token_file or named[0] or named[1]
    if in_file:
        raise InputError(f"The settings file names {', '.join(sorted(in_file))}: no such setting.")
    own_token = token(token_file and Path(token_file), environment)
    return Settings(archives=archives, peers=peers, token=own_token, **values)


def archives_of(config: str | None, environment: Mapping[str, str]) -> Mapping[str, Archive]:
    """The archives of a settings file, or of the one that RETREG_CONFIG names."""
    in_file = _file(config or environment.get(PREFIX + CONFIG.upper()))
    return archives_from(in_file.get(ARCHIVES, {}))


def token(path: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The token in the first line of a file, else the one in RETREG_TOKEN, else None."""
    if path is None:
        return environment.get("RETREG_TOKEN") or None
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        raise InputError(
            f"The token file {path.name} cannot be read; create it with one line of text."
        ) from None
    return lines[0].strip() if lines else ""


def table() -> str:
    """The settings as a table in Markdown, for the documentation."""
    rows = ["| flag | environment | default | meaning |", "|---|---|---|---|"]
    rows += [
        f"| `{each.flag}` | `{each.variable}` | {_text(each.default) or '–'} | {each.meaning} |"
        for each in all_settings()
    ]
    return "\n".join(rows)


def _file(path: str | None) -> dict[str, Any]:
    if not path:
        return {}
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError):
        raise InputError(
            f"The settings file {Path(path).name} cannot be read; it must be valid TOML."
        ) from None


def _converted(kind: Any, given: Any) -> Any:
    if isinstance(kind, UnionType):  # a path or nothing
        kind = get_args(kind)[0]
    if get_origin(kind) is tuple:
        names = given.split(",") if isinstance(given, str) else map(str, given)
        return tuple(name.strip() for name in names if name.strip())
    if kind is bool:
        return SWITCHES[str(given).lower()]
    if kind in (int, float):
        value = kind(given)
        if isinstance(given, bool) or not value >= 0 or value != float(given):
            raise ValueError
        return value
    if not isinstance(given, str):
        raise TypeError
    return kind(given)


def _text(default: Any) -> str:
    if isinstance(default, tuple):
        return ", ".join(default)
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
