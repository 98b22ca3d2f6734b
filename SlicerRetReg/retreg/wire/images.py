"""Images on the wire: raw little-endian voxels, and their geometry as JSON in a header.

The header names size (i, j, k), world_from_index, channels, dtype and encoding; the body holds
the voxels in the order (channels, k, j, i). "zlib+shuffle" sends the first bytes of all voxels,
then all second bytes and so on, deflated. The address of an image is the SHA-256 of the header's
text, a line feed, and the body, all as sent: any client can compute it, a server can check it
before it inflates anything, and equal voxels with another geometry have another address.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from retreg.errors import InputError
from retreg.geometry import Grid
from retreg.image import MAX_CHANNELS, Image
from retreg.wire import fields
from retreg.wire.json_text import dumps, loads
from retreg.wire.transforms import decode_grid, encode_grid

Encoding = Literal["identity", "zlib+shuffle"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
IMAGE_HEADER = "RetReg-Image"
DTYPES = (
    *("int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
)


@dataclass(frozen=True, eq=False)
class ImageHeader:
    """What is known of an image before its body has arrived."""

    grid: Grid
    channels: int
    dtype: np.dtype[Any]
    encoding: Encoding

    @property
    def nbytes(self) -> int:
        """Size of the decoded voxels."""
        i, j, k = self.grid.size
        return self.channels * i * j * k * self.dtype.itemsize


def encode_image(image: Image, encoding: Encoding = "identity") -> tuple[str, bytes]:
    """The header's text (ASCII JSON) and the body of an image.

    Raises InputError for voxels of a type outside DTYPES.
    """
    name = image.array.dtype.name
    if name not in DTYPES:
        raise InputError(f"Voxels of type {name} cannot be sent; use one of {', '.join(DTYPES)}.")
    header = {
        **encode_grid(image.grid),
        "channels": image.array.shape[0],
        "dtype": name,
        "encoding": encoding,
    }
    body = np.ascontiguousarray(image.array, np.dtype(name).newbyteorder("<")).tobytes()
    if encoding == "zlib+shuffle":
        body = zlib.compress(_transposed(body, rows=-1, columns=image.array.itemsize), 1)
    return dumps(header).decode("ascii"), body


def decode_header(text: str, max_bytes: int) -> ImageHeader:
    """The checked header of an image whose decoded voxels take at most max_bytes."""
    message = loads(text)
    grid = decode_grid(message)
    channels = fields.integer(message, "channels")
    dtype, encoding = fields.text(message, "dtype"), fields.text(message, "encoding")
    encodings: dict[str, Encoding] = {name: name for name in ENCODINGS}
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"{channels} channels were declared; 1 to {MAX_CHANNELS} are possible.")
    if dtype not in DTYPES:
        raise InputError(f"The voxel type {dtype!r} is not known; use {', '.join(DTYPES)}.")
    if encoding not in encodings:
        raise InputError(f"The encoding {encoding!r} is not known; use {', '.join(ENCODINGS)}.")
    header = ImageHeader(grid, channels, np.dtype(dtype).newbyteorder("<"), encodings[encoding])
    if header.nbytes > max_bytes:
        raise InputError(
            f"An image of {header.nbytes / 2**20:.0f} MiB was declared; at most "
            f"{max_bytes / 2**20:.0f} MiB are accepted, so crop or resample it."
        )
    return header


def decode_image(header: ImageHeader, body: bytes | bytearray) -> Image:
    """The image in a body, never inflating more than the header declares; read-only voxels."""
    voxels = _inflated(header, body) if header.encoding == "zlib+shuffle" else body
    if len(voxels) != header.nbytes:
        raise InputError(
            f"The image body holds {len(voxels)} bytes; its header declares {header.nbytes}."
        )
    flat = np.frombuffer(voxels, header.dtype)
    array = flat.reshape(header.channels, *header.grid.shape)
    array = array.astype(header.dtype.newbyteorder("="), copy=False)
    array.flags.writeable = False
    return Image(array, header.grid)


def image_address(header_text: str, body: bytes | bytearray) -> str:
    """The address of an image as sent: 64 hexadecimal digits."""
    digest = hashlib.sha256(header_text.encode("utf-8", "replace") + b"\n")
    digest.update(body)
    return digest.hexdigest()


def _inflated(header: ImageHeader, body: bytes | bytearray) -> bytes:
    stream = zlib.decompressobj()
    try:
        shuffled = stream.decompress(body, header.nbytes + 1)
    except zlib.error as error:
        raise InputError("The image body is not a valid zlib stream.") from error
    if len(shuffled) != header.nbytes or not stream.eof or stream.unused_data:
        raise InputError(
            f"The image body does not inflate to exactly the {header.nbytes} bytes that its "
            "header declares."
        )
    return _transposed(shuffled, rows=header.dtype.itemsize, columns=-1)


def _transposed(data: bytes, rows: int, columns: int) -> bytes:
    """The bytes of a row-major table in column-major order; -1 stands for as many as fit."""
    return np.frombuffer(data, np.uint8).reshape(rows, columns).T.tobytes()
