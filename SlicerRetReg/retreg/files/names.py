"""Names of files and folders that every library can take."""

from __future__ import annotations

import os
from pathlib import Path

from retreg.errors import FileError


def usable_name(path: str | Path) -> Path:
    """The path, if all of it is valid text; some libraries end the process when it is not.

    Python keeps the bytes of a name that is not UTF-8 as lone surrogates (PEP 383). Raises
    FileError that shows such bytes as question marks.
    """
    path = Path(path)
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        bad = next(part for part in (path, *path.parents)[::-1] if not _is_text(str(part))).name
        shown = os.fsencode(bad).decode("utf-8", "replace").replace("\ufffd", "?")
        raise FileError(
            f"The name {shown!r} of a file or folder is not valid UTF-8 text; rename it, with "
            "plain letters for instance."
        ) from None
    return path


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
