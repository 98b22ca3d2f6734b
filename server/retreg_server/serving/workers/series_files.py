"""A DICOM series that arrives as several files or as one zip, as a folder of files of our names."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from retreg.errors import FileError
from retreg.files.limits import MAX_FILE_BYTES, MAX_SERIES_FILES

_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1


def write_parts(content: memoryview, sizes: Sequence[int], folder: Path) -> None:
    """Write files that lie one after the other in content, sizes bytes each."""
    start = 0
    for number, size in enumerate(sizes):
        (folder / f"{number:05}.dcm").write_bytes(content[start : start + size])
        start += size


def unpack(content: memoryview, folder: Path) -> None:
    """Write the files of a zip under names of our own, whatever folders they lie in there.

    Raises FileError when it is damaged, encrypted or packed in another way, and when it holds more
    files or bytes than may be read (retreg.files.limits), before these are unpacked.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            members = [each for each in packed.infolist() if _is_wanted(each)]
            _refuse(members)
            for number, each in enumerate(members):
                with packed.open(each) as source:
                    data = source.read(each.file_size)
                (folder / f"{number:05}.dcm").write_bytes(data)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise FileError("The zip is damaged; pack the files of the series again.") from error


def _is_wanted(member: zipfile.ZipInfo) -> bool:
    """Whether it is a file, and none that systems add on their own."""
    name = member.filename.rpartition("/")[2]
    hidden = name.startswith(".") or member.filename.startswith("__MACOSX/")
    return not (member.is_dir() or hidden or name.upper() == "DICOMDIR")


def _refuse(members: Sequence[zipfile.ZipInfo]) -> None:
    total = sum(each.file_size for each in members)
    if len(members) > MAX_SERIES_FILES or total > MAX_FILE_BYTES:
        raise FileError(
            f"The zip holds {len(members)} files of {total / 1e9:.3g} GB; at most "
            f"{MAX_SERIES_FILES} of {MAX_FILE_BYTES / 1e9:g} GB are read, so send one series."
        )
    if any(m.compress_type not in _PLAIN or m.flag_bits & _ENCRYPTED for m in members):
        raise FileError("The zip is encrypted or packed in a rare way; pack it as usual.")
    if not members:
        raise FileError("The zip holds no files; pack the DICOM files of one series into it.")
