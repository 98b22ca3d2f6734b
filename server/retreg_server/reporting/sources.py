"""Which files a result was made of: their names, and hashes by which they can be known again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Source:
    """name: of the file or folder, without where it lies. sha256: of its content."""

    name: str
    sha256: str


def source_of(path: Path) -> Source:
    """The name and hash of a file; of a folder, of its files one after the other, by name."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            with file.open("rb") as content:
                while piece := content.read(_CHUNK):
                    digest.update(piece)
    return Source(path.resolve().name, digest.hexdigest())
