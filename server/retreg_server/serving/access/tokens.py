"""The tokens of a server: one for all, or a file with a name and rights for each.

    [alice]
    sha256 = ["9f86d0…"]         # of the token; two while it is being replaced
    rights = ["register"]        # or "read" (its own results only), or "admin" (everything)
    group = "neuro"              # optional: shares images and results with its like
    jobs = 4                     # optional: registrations at the same time
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retreg.errors import InputError
from retreg_server.serving.access.caller import RIGHTS, Caller

logger = logging.getLogger(__name__)

NAME = re.compile("[a-z0-9][a-z0-9_-]{0,31}")
SHA256 = re.compile("[0-9a-f]{64}")
FIELDS = {"sha256", "rights", "group", "jobs"}


class Tokens:
    """Finds who a token belongs to. The file is read again when it has changed.

    Raises InputError when the file cannot be used; one that is damaged later is not taken over.
    """

    def __init__(self, single: str | None, path: Path | None) -> None:
        self._single = single
        self._path = path
        self._stamp = _stamp(path)
        self._known = {} if path is None else read_tokens(path)

    @property
    def are_needed(self) -> bool:
        """Whether nothing is answered without one."""
        return self._single is not None or self._path is not None

    def owner_of(self, given: bytes) -> Caller | None:
        """Who that token belongs to, if anybody."""
        if self._single is not None and hmac.compare_digest(given, self._single.encode("ascii")):
            return Caller("token")
        self._look_again()
        return self._known.get(hash_of(given))

    def _look_again(self) -> None:
        stamp = _stamp(self._path)
        if self._path is None or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._known = read_tokens(self._path)
            logger.info("The file with the tokens was read again: %d tokens.", len(self._known))
        except InputError as error:
            logger.error("The tokens stay as they were: %s", error)


def hash_of(token: bytes) -> str:
    """What the file has of a token. Tokens are long and random, so that one round is enough."""
    return hashlib.sha256(token).hexdigest()


def read_tokens(path: Path) -> Mapping[str, Caller]:
    """The callers in a file, by the SHA-256 of their tokens. Raises InputError."""
    try:
        entries = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        raise InputError(
            f"The file {path.name} with the tokens cannot be read; it must be valid TOML."
        ) from None
    known = {}
    for name, entry in entries.items():
        client = _caller(path, name, entry)
        for digest in _texts(entry.get("sha256")):
            known[digest] = client
    if not known:
        raise InputError(
            f"The file {path.name} holds no token; make one with `retreg token NAME --file FILE`."
        )
    return known


def _caller(path: Path, name: str, entry: Any) -> Caller:
    """Raises InputError when an entry says something else than is expected."""
    is_table = isinstance(entry, dict) and not set(entry) - FIELDS
    digests, rights = (_texts(entry.get(key)) if is_table else () for key in ("sha256", "rights"))
    group, jobs = (entry.get(key) if is_table else None for key in ("group", "jobs"))
    if (
        not NAME.fullmatch(name)
        or not digests
        or not all(map(SHA256.fullmatch, digests))
        or not rights
        or not set(rights) <= set(RIGHTS)
        or not (group is None or (isinstance(group, str) and NAME.fullmatch(group)))
        or not (jobs is None or (type(jobs) is int and jobs > 0))
    ):
        raise InputError(
            f"The entry {name!r} in the file {path.name} is not usable; it needs sha256, rights of "
            f"{', '.join(RIGHTS)}, and at most a group and a number of jobs."
        )
    rights_given = frozenset({*rights, *(("read",) if "register" in rights else ())})
    owner = f"name {name}" if group is None else f"group {group}"
    return Caller(name, owner, rights_given, jobs)


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(value for value in values if isinstance(value, str))


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    """Changes when the file does."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
