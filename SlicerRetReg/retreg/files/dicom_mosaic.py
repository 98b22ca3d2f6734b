"""Siemens mosaics: all slices of a volume as tiles of one picture.

Sources: nibabel's documentation of the mosaic format and of the private CSA header (SV10).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np

from retreg.errors import FileError
from retreg.files.dicom_about import image_type
from retreg.files.dicom_geometry import Frame, frames_of
from retreg.geometry import Grid

_CREATOR, _COUNT = 0x00190010, 0x0019100A  # of the private block, and NumberOfImagesInMosaic
_MAX_TAGS = 300


@dataclass(frozen=True, eq=False)
class Mosaic:
    """count slices in per_side x per_side tiles, row by row, and the grid of the volume."""

    count: int
    per_side: int
    grid: Grid

    def unfolded(self, picture: np.ndarray) -> np.ndarray:
        """(channels, count, rows, columns) of a picture (channels, 1, all rows, all columns)."""
        i, j, _ = self.grid.size
        n = self.per_side
        tiles = picture[:, 0].reshape(len(picture), n, j, n, i).swapaxes(2, 3)
        return np.ascontiguousarray(tiles.reshape(len(picture), n * n, j, i)[:, : self.count])


def is_mosaic(header: Any) -> bool:
    """Whether the header says so, by its image type or by the number of slices in it."""
    return "MOSAIC" in image_type(header) or _count_of(header) > 1


def mosaic_of(name: str, header: Any, whole: Any) -> Mosaic:
    """How to unfold the mosaic, from its header and the private elements of the whole data set.

    The position in the header is that of a slice as large as the whole picture with the same
    centre, so the first tile begins half the difference further on. Slices follow each other
    along the SliceNormalVector, which may oppose the cross product of rows and columns.
    Raises FileError when the header does not tell enough, and for several mosaics in one file.
    """
    frame = _only_frame(name, header)
    csa = csa_of(whole)
    count = int(_count_of(whole) or _first(csa.get("NumberOfImagesInMosaic")))
    step = _number(header.get("SpacingBetweenSlices")) or _first(csa.get("SpacingBetweenSlices"))
    normal = csa.get("SliceNormalVector", [])
    per_side = max(ceil(sqrt(count)), 1)
    rows, columns = int(header.Rows), int(header.Columns)
    missing = [
        what
        for what, known in (
            ("the number of its slices", count > 0),
            ("the direction in which they follow each other", len(normal) == 3),
            ("their distance", step > 0),
            ("their place", frame.axes is not None),
            ("tiles of equal size", rows % per_side == columns % per_side == 0),
        )
        if not known
    ]
    if missing or frame.axes is None or frame.position is None:
        raise FileError(
            f"{name} is a Siemens mosaic, which holds the slices of a volume as tiles of one "
            f"picture, but its header does not tell {', '.join(missing)}; give the original file "
            "with its private attributes, or convert that one with dcm2niix."
        )
    size = (columns // per_side, rows // per_side, count)
    matrix = np.eye(4)
    matrix[:3, :2] = frame.axes
    matrix[:3, 2] = step * _direction(name, frame.axes, np.array(normal))
    matrix[:3, 3] = frame.position + frame.axes @ (np.array([columns, rows]) - size[:2]) / 2
    return Mosaic(count, per_side, Grid(size, matrix))


def _only_frame(name: str, header: Any) -> Frame:
    frames = frames_of(header)
    if len(frames) > 1:
        raise FileError(
            f"{name} holds {len(frames)} mosaics, each of which is a whole volume; convert it "
            "with dcm2niix and give one of the volumes."
        )
    return frames[0]


def _direction(name: str, axes: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The unit vector along which slices with the axes (3, 2) follow each other."""
    across = np.cross(axes[:, 0], axes[:, 1])
    across /= np.linalg.norm(across)
    if abs(float(across @ normal)) < 0.9:
        raise FileError(
            f"{name} is a Siemens mosaic whose header contradicts itself on the direction of "
            "the slices; convert the original file with dcm2niix."
        )
    direction: np.ndarray = across * np.sign(across @ normal)
    return direction


def csa_of(header: Any) -> dict[str, list[float]]:
    """The numbers of the CSA image header by name; empty without one, or in the older layout."""
    try:
        block = header.private_block(0x0029, "SIEMENS CSA HEADER")
        content = bytes(block[0x10].value)
    except (KeyError, TypeError):
        return {}
    return _parsed(content) if content[:4] == b"SV10" else {}


def _parsed(content: bytes) -> dict[str, list[float]]:
    """A CSA header: names of 64 bytes, each with values of 16 bytes and a text padded to 4."""
    found: dict[str, list[float]] = {}
    try:
        (tags,) = struct.unpack_from("<I", content, 8)
        at = 16
        for _ in range(min(tags, _MAX_TAGS)):
            name, items = struct.unpack_from("<64s12xi", content, at)
            at += 84
            texts = []
            for _ in range(items):
                (length,) = struct.unpack_from("<4xi", content, at)
                if not 0 <= length <= len(content) - at - 16:
                    raise struct.error
                texts.append(content[at + 16 : at + 16 + length])
                at += 16 + (length + 3) // 4 * 4
            found[name.split(b"\0")[0].decode("latin-1")] = _numbers(texts)
    except struct.error:  # cut off: what came before is right
        pass
    return found


def _numbers(texts: list[bytes]) -> list[float]:
    stripped = [text.split(b"\0")[0].strip() for text in texts]
    try:
        return [float(text) for text in stripped if text]
    except ValueError:
        return []


def _first(values: list[float] | None) -> float:
    return values[0] if values else 0.0


def _count_of(header: Any) -> float:
    """NumberOfImagesInMosaic; 0 where other makers keep something else in this element."""
    creator = getattr(header.get(_CREATOR), "value", None)
    if creator is not None and b"SIEMENS" not in _bytes(creator):
        return 0.0
    return _number(header.get(_COUNT))


def _bytes(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode()


def _number(element: Any) -> float:
    """The number in a data element or a value; 0 without one."""
    value = getattr(element, "value", element)
    if isinstance(value, bytes):
        return float(int.from_bytes(value[:2], "little"))
    return float(value) if value else 0.0
