"""The archives that a site knows by name: addresses and credentials never come from a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from retreg.errors import InputError

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")  # of what the settings name
_KEYS = {"url", "user", "password_file", "token_file"}


@dataclass(frozen=True)
class Archive:
    """A DICOMweb service: the address before /studies, and what lets one in."""

    name: str
    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True)
class SeriesName:
    """A series in an archive, by its UIDs."""

    study: str
    series: str


def archives_from(table: Any) -> dict[str, Archive]:
    """The archives of the table [archives.NAME] of a settings file. Raises InputError."""
    if not isinstance(table, Mapping):
        raise InputError("The setting archives is no table; write [archives.NAME] above each one.")
    return {str(name): _archive(str(name), entry) for name, entry in table.items()}


def archive_named(archives: Mapping[str, Archive], name: str | None) -> Archive:
    """The archive of that name; without one, the only archive that there is. Raises InputError."""
    if name is None and len(archives) == 1:
        return next(iter(archives.values()))
    if not archives:
        raise InputError(
            "The settings know no archive; add one as [archives.NAME] to the settings file."
        )
    if name is None:
        raise InputError(
            f"The settings know {len(archives)} archives, so that one has to be named; say which."
        )
    if name not in archives:
        known = ", ".join(sorted(archives))
        raise InputError(
            f"There is no archive {name!r} in the settings, which know {known}; add it as "
            "[archives.NAME] to the settings file."
        )
    return archives[name]


def _archive(name: str, entry: Any) -> Archive:
    if not NAME.fullmatch(name):
        raise InputError(f"The archive {name!r} needs a name of small letters, digits, - and _.")
    if not isinstance(entry, Mapping) or not set(entry) <= _KEYS or "url" not in entry:
        raise InputError(
            f"The archive {name} needs a url, and may have {', '.join(sorted(_KEYS - {'url'}))}; "
            "nothing else was expected."
        )
    parts = urlsplit(str(entry["url"]))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise InputError(
            f"The url of the archive {name} is not usable; one such as "
            "https://archive.example/dicom-web was expected, with the credentials apart."
        )
    user, password = str(entry.get("user", "")), _secret(entry.get("password_file"), name)
    if bool(user) != bool(password):
        raise InputError(f"The archive {name} needs user and password_file, or neither.")
    token = _secret(entry.get("token_file"), name)
    return Archive(name, str(entry["url"]).rstrip("/"), user, password, token)


def _secret(path: Any, name: str) -> str:
    """The first line of a file, if one is named."""
    if path is None:
        return ""
    try:
        return Path(str(path)).read_text("utf-8").splitlines()[0].strip()
    except (OSError, ValueError, IndexError):
        raise InputError(
            f"The file {Path(str(path)).name} with the secret of the archive {name} cannot be "
            "read; create it with one line of text."
        ) from None
