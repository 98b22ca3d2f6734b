"""Where files come in and go out: every failure becomes one sentence, every write is atomic."""

from __future__ import annotations

import errno
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retreg.errors import FileError, InputError, RetRegError
from retreg.files.limits import MAX_FILE_BYTES
from retreg.files.names import usable_name

_NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextmanager
def reading(name: str, kind: str) -> Iterator[None]:
    """Turn whatever a decoder raises into a FileError that names the file and its kind.

    The cause is dropped on purpose: the messages and warnings of the decoders quote header
    values and folders, which may name a patient.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FileError:
        raise
    except InputError as error:
        raise type(error)(f"{name}: {error}") from None
    except RetRegError:
        raise
    except PermissionError:
        raise FileError(f"{name} may not be read; check the permissions of the file.") from None
    except MemoryError:
        raise FileError(f"{name} does not fit into memory; crop it or make it coarser.") from None
    except Exception as error:
        if _is_of_temporary_files(error):
            raise FileError(
                f"{name} could not be read because the folder for temporary files has no room or "
                "cannot be written; free some space, or name another folder in TMPDIR."
            ) from None
        raise FileError(
            f"{name} could not be read as {kind}: it is damaged, incomplete or of an unusual kind; "
            "copy or export it again."
        ) from None


def _is_of_temporary_files(error: Exception) -> bool:
    """Whether something could not be written, which while reading is a temporary copy only."""
    return isinstance(error, OSError) and (
        error.errno in _NO_ROOM or "temporary directory" in str(error.strerror)
    )


@contextmanager
def library(package: str, name: str, kind: str) -> Iterator[None]:
    """Import what reads this kind of file. Raises FileError where the package is not installed."""
    try:
        yield
    except ImportError:
        raise FileError(
            f"{name} is {kind}, and the package {package}, which reads it, is not installed; "
            f"install it with pip install {package}."
        ) from None


def existing_file(path: str | Path, max_bytes: int = MAX_FILE_BYTES) -> Path:
    """The path, if it names a file with content of at most max_bytes. Raises FileError."""
    path = usable_name(path)
    if not path.is_file():
        raise FileError(f"There is no file {path.name!r}; check its name and folder.")
    size = path.stat().st_size
    if size == 0:
        raise FileError(f"{path.name} is empty; copy or export it again.")
    if size > max_bytes:
        raise FileError(
            f"{path.name} has {size / 1e6:.0f} MB; at most {max_bytes / 1e6:.0f} MB are accepted."
        )
    return path


@contextmanager
def replacing(path: Path, suffix: str) -> Iterator[Path]:
    """A temporary path in the same folder that takes the place of path when the block succeeds.

    suffix: ending of the temporary name, by which libraries choose the format. A reader sees
    either the old file or the complete new one. Raises FileError when it cannot be written.
    """
    temporary = path.with_name(f".{secrets.token_hex(6)}{suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except (OSError, RuntimeError):
        raise FileError(
            f"{path.name} could not be written; check that its folder exists, may be written to "
            "and has space left."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
