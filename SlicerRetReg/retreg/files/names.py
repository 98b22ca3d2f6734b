"""Names of files and folders that every library can take."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from retreg.errors import FileError

_SHOWN = 40  # letters of a name in a message
_NEVER_OPENED = {
    errno.ENAMETOOLONG: "is longer than the system allows; use a shorter one",
    errno.ELOOP: "stands for a link that leads back to itself; give the file itself",
}


def usable_name(path: str | Path) -> Path:
    """The path, if all of it is valid text; some libraries end the process when it is not.

    Python keeps the bytes of a name that is not UTF-8 as lone surrogates (PEP 383). Raises
    FileError that shows such bytes as question marks, and for names that the system refuses.
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
    try:
        path.stat()
    except OSError as error:
        if error.errno in _NEVER_OPENED:
            raise FileError(
                f"The name {path.name[:_SHOWN]!r} of a file or folder "
                f"{_NEVER_OPENED[error.errno]}."
            ) from None
    return path


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
