"""Images on the wire: raw little-endian voxels, and their geometry as JSON in a header.

The header names size (i, j, k), world_from_index, channels, dtype and encoding; the body holds
the voxels in the order (channels, k, j, i), as they are or compressed by zlib or zstd. "+shuffle"
means that the first bytes of all voxels come first, then all second bytes and so on, which
compresses better. zstd needs the package zstandard on both sides. The address of an image is the
SHA-256 of the header's text, a line feed, and the body, all as sent: any client can compute it, a
server can check it before it inflates anything, and equal voxels with another geometry have
another address. What the image's file says of it may follow as the field about. Where the field
counted is true, the voxels are followed by a bit for each (k, j, i), the first the highest of its
byte, that says whether it counts, and by zeros up to a multiple of the size of a value.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from retreg.about import SAYS_NOTHING, About
from retreg.errors import InputError
from retreg.geometry import Grid
from retreg.image import MAX_CHANNELS, Image
from retreg.wire import fields
from retreg.wire.about import decode_about, encode_about
from retreg.wire.json_text import dumps, loads
from retreg.wire.transforms import decode_grid, encode_grid

Encoding = Literal["identity", "zlib+shuffle", "zstd", "zstd+shuffle"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
IMAGE_HEADER = "RetReg-Image"
Buffer = bytes | bytearray | memoryview
MAX_ZSTD_WINDOW = 2**27  # what the command zstd accepts too
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
    about: About = SAYS_NOTHING
    has_mask: bool = False

    @property
    def nbytes(self) -> int:
        """Size of the decoded voxels, and of what says which of them count."""
        return self.voxel_bytes + self.has_mask * _mask_bytes(self.grid, self.dtype.itemsize)

    @property
    def voxel_bytes(self) -> int:
        """Size of the decoded voxels."""
        i, j, k = self.grid.size
        return self.channels * i * j * k * self.dtype.itemsize


def encode_image(image: Image, encoding: Encoding = "identity") -> tuple[str, bytes]:
    """The header's text (ASCII JSON) and the body of an image.

    Raises InputError for voxels of a type outside DTYPES.
    """
    header = image_header(image, encoding)
    body = _little_endian(image).tobytes() + mask_bits(image)
    if encoding.endswith("+shuffle"):
        body = _transposed(body, rows=-1, columns=image.array.itemsize)
    if encoding.startswith("zlib"):
        body = zlib.compress(body, 1)
    elif encoding.startswith("zstd"):
        body = _zstandard().ZstdCompressor(1).compress(body)
    return header, body


def image_header(image: Image, encoding: Encoding = "identity") -> str:
    """The header's text alone. Raises InputError for voxels of a type outside DTYPES."""
    name = image.array.dtype.name
    if name not in DTYPES:
        raise InputError(f"Voxels of type {name} cannot be sent; use one of {', '.join(DTYPES)}.")
    header = {
        **encode_grid(image.grid),
        "channels": image.array.shape[0],
        "dtype": name,
        "encoding": encoding,
    }
    if about := encode_about(image.about):
        header["about"] = about
    if image.counted is not None:
        header["counted"] = True
    return dumps(header).decode("ascii")


def mask_bits(image: Image) -> bytes:
    """What follows the voxels: which of them count; nothing for an image without a mask."""
    if image.counted is None:
        return b""
    bits = np.packbits(image.counted).tobytes()
    return bits.ljust(_mask_bytes(image.grid, image.array.itemsize), b"\0")


def _mask_bytes(grid: Grid, itemsize: int) -> int:
    i, j, k = grid.size
    return -(-i * j * k // (8 * itemsize)) * itemsize


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
    about = decode_about(fields.mapping(message, "about")) if "about" in message else SAYS_NOTHING
    voxel = np.dtype(dtype).newbyteorder("<")
    has_mask = message.get("counted") is True
    header = ImageHeader(grid, channels, voxel, encodings[encoding], about, has_mask)
    if header.nbytes > max_bytes:
        raise InputError(
            f"An image of {header.nbytes / 2**20:.0f} MiB was declared; at most "
            f"{max_bytes / 2**20:.0f} MiB are accepted, so crop or resample it."
        )
    return header


def decode_image(header: ImageHeader, body: Buffer) -> Image:
    """The image in a body, never inflating more than the header declares; read-only voxels."""
    voxels = body if header.encoding == "identity" else _decompressed(header, body)
    if len(voxels) != header.nbytes:
        raise InputError(
            f"The image body holds {len(voxels)} bytes; its header declares {header.nbytes}."
        )
    flat = np.frombuffer(voxels, header.dtype, header.voxel_bytes // header.dtype.itemsize)
    counted: np.ndarray | None = None
    if header.has_mask:
        bits = np.frombuffer(voxels, np.uint8, offset=header.voxel_bytes)
        counted = np.unpackbits(bits, count=flat.size // header.channels).astype(bool)
        counted = counted.reshape(header.grid.shape)
    array = flat.reshape(header.channels, *header.grid.shape)
    array = array.astype(header.dtype.newbyteorder("="), copy=False)
    array.flags.writeable = False
    return Image(array, header.grid, header.about, counted)


def image_address(header_text: str, body: Buffer) -> str:
    """The address of an image as sent: 64 hexadecimal digits."""
    digest = hashlib.sha256(header_text.encode("utf-8", "replace") + b"\n")
    digest.update(body)
    return digest.hexdigest()


def _decompressed(header: ImageHeader, body: Buffer) -> bytes:
    inflate = _inflated if header.encoding.startswith("zlib") else _unpacked
    voxels = inflate(body, header.nbytes)
    if len(voxels) != header.nbytes:
        raise InputError(
            f"The image body does not inflate to exactly the {header.nbytes} bytes that its "
            "header declares."
        )
    if header.encoding.endswith("+shuffle"):
        return _transposed(voxels, rows=header.dtype.itemsize, columns=-1)
    return voxels


def _inflated(body: Buffer, nbytes: int) -> bytes:
    """At most one byte more than nbytes; nothing when the stream does not end there."""
    stream = zlib.decompressobj()
    try:
        voxels = stream.decompress(body, nbytes + 1)
    except zlib.error as error:
        raise InputError("The image body is not a valid zlib stream.") from error
    return voxels if stream.eof and not stream.unused_data else b""


def _unpacked(body: Buffer, nbytes: int) -> bytes:
    """As _inflated, for zstd."""
    zstandard = _zstandard()
    try:
        with zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW).stream_reader(
            memoryview(body), read_across_frames=True
        ) as stream:
            voxels: bytes = stream.read(nbytes + 1)
    except zstandard.ZstdError as error:
        raise InputError("The image body is not a valid zstd stream.") from error
    return voxels


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise InputError(
            "zstd needs the package zstandard, which is not installed; use zlib+shuffle."
        ) from error
    return zstandard


def _little_endian(image: Image) -> np.ndarray:
    return np.ascontiguousarray(image.array, image.array.dtype.newbyteorder("<"))


def _transposed(data: bytes, rows: int, columns: int) -> bytes:
    """The bytes of a row-major table in column-major order; -1 stands for as many as fit."""
    return np.frombuffer(data, np.uint8).reshape(rows, columns).T.tobytes()
