"""What the header of a volume file promises, read before any voxel is.

The decoders trust these headers: they take the memory that is declared and some fill what is
missing with zeros. So the size is checked against the limit first, and then against what is
really in the file; compressed data are inflated in small pieces and never kept.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO, cast

from retreg.errors import FileError
from retreg.files.formats import Format
from retreg.files.limits import MAX_TEXT_HEADER_BYTES, refuse_large_volume
from retreg.files.nifti_header import NIFTI_2_BYTES, NiftiHeader

_CHUNK = 1 << 20
MAX_DIMENSIONS = 7
_NIFTI_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 128: 3, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8,
                2304: 4}  # fmt: skip
_NRRD_BYTES = {
    1: ("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"),
    2: ("short", "short int", "signed short", "signed short int", "int16", "int16_t", "ushort",
        "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    4: ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t",
        "float"),
    8: ("longlong", "long long", "long long int", "signed long long", "signed long long int",
        "int64", "int64_t", "ulonglong", "unsigned long long", "unsigned long long int", "uint64",
        "uint64_t", "double"),
}  # fmt: skip
_META_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "FLOAT": 4,
               "LONG_LONG": 8, "ULONG_LONG": 8, "DOUBLE": 8}  # fmt: skip


_MGH_BYTES = {0: 1, 1: 4, 3: 4, 4: 2, 10: 2}
MGH_HEADER_BYTES = 284


@dataclass(frozen=True)
class Promise:
    """What a header declares: counts along every axis, and where the voxels are stored.

    sizes: fastest axis first, channels included. offset: first byte of the voxels, which are
    stored as they are or deflated.
    """

    sizes: tuple[int, ...]
    voxel_bytes: int
    offset: int
    deflated: bool = False

    @property
    def decoded_bytes(self) -> int:
        """Memory that all voxels take."""
        return prod(self.sizes) * self.voxel_bytes


def checked_header(path: Path, found: Format) -> Promise:
    """What the header promises, if that is acceptable in size and really in the file.

    Raises FileError for anything else, and for types of voxels that are not supported.
    """
    parse = _PARSERS.get(found)
    if parse is None:
        raise FileError(f"{path.name} is {found.value}; a NRRD, NIfTI or MHA file was expected.")
    with unpacked(path) as file:
        promise = parse(file, path.name)
        refuse_large_volume(path.name, promise.decoded_bytes)
        if not _is_kept(file, promise):
            raise FileError(
                f"{path.name} is cut off: it holds fewer voxels than its header declares; copy or "
                "export it again."
            )
    return promise


def unpacked(path: Path) -> BinaryIO:
    """The file, opened to read what it holds, through gzip if it is packed as a whole."""
    return cast(BinaryIO, gzip.open(path) if is_packed(path) else path.open("rb"))


def is_packed(path: Path) -> bool:
    """Whether the file is packed as a whole by gzip."""
    with path.open("rb") as raw:
        return raw.read(2) == b"\x1f\x8b"


def _is_kept(file: BinaryIO, promise: Promise) -> bool:
    """Whether all voxels are there; reads one piece more, since a checksum stands at the end."""
    missing = promise.decoded_bytes
    file.seek(promise.offset)
    for piece in _inflated(file) if promise.deflated else _chunks(file):
        if missing <= 0:
            break
        missing -= len(piece)
    return missing <= 0


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    """What a zlib or gzip stream holds, in pieces of at most _CHUNK bytes."""
    inflater = zlib.decompressobj(wbits=47)  # 47: either of the two
    for packed in _chunks(file):
        rest = packed
        while rest and not inflater.eof:
            yield inflater.decompress(rest, _CHUNK)
            rest = inflater.unconsumed_tail
    yield inflater.flush()


def _nifti(file: BinaryIO, name: str) -> Promise:
    header = NiftiHeader(file.read(NIFTI_2_BYTES))
    if header.magic not in (b"n+1", b"n+2"):
        raise FileError(
            f"{name} is only the header of an image whose voxels are in another file; save it as "
            "one .nii or .nii.gz file."
        )
    if header.voxel_type not in _NIFTI_BYTES:
        raise FileError(f"{name} has voxels of an unsupported type; save it as real numbers.")
    count, *axes = header.dims
    sizes = _sizes(name, tuple(axes[:count]) if 1 <= count <= MAX_DIMENSIONS else ())
    if not 0 <= header.offset <= MAX_TEXT_HEADER_BYTES:
        raise FileError(
            f"{name} says that its voxels start at byte {header.offset:g}; save it again."
        )
    return Promise(sizes, _NIFTI_BYTES[header.voxel_type], max(int(header.offset), header.length))


def _mgh(file: BinaryIO, name: str) -> Promise:
    """Seven big-endian integers: version, four sizes, type, degrees of freedom."""
    _, *axes, kind, _ = struct.unpack(">7i", file.read(28))
    if kind not in _MGH_BYTES:
        raise FileError(f"{name} has voxels of an unsupported type; save it as real numbers.")
    return Promise(_sizes(name, tuple(axes)), _MGH_BYTES[kind], MGH_HEADER_BYTES)


def _nrrd(file: BinaryIO, name: str) -> Promise:
    fields = {}
    for line in _lines(file, name):
        if not line:
            break
        key, _, value = line.partition(":")
        if not line.startswith("#"):
            fields[key.strip().lower()] = value.strip()
    if "data file" in fields or "datafile" in fields:
        raise FileError(
            f"{name} is only the header of an image whose voxels are in another file; save it as "
            "one .nrrd file."
        )
    sizes = _sizes(name, _integers(fields.get("sizes", "")))
    size = [n for n, names in _NRRD_BYTES.items() if fields.get("type", "").lower() in names]
    encoding = fields.get("encoding", "").lower()
    skips = {fields.get(f"{what}{gap}skip", "0") for what in ("line", "byte") for gap in (" ", "")}
    if not size or encoding not in ("raw", "gz", "gzip") or skips != {"0"}:
        raise FileError(
            f"{name} has an unsupported type or encoding of voxels; save it as raw or gzip NRRD."
        )
    return Promise(sizes, size[0], file.tell(), encoding != "raw")


def _meta(file: BinaryIO, name: str) -> Promise:
    fields = {}
    for line in _lines(file, name):
        key, _, value = line.partition("=")
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    if fields.get("ElementDataFile") != "LOCAL":
        raise FileError(
            f"{name} is only the header of an image whose voxels are in another file; save it as "
            "one .mha file."
        )
    axes = _integers(fields.get("DimSize", ""))
    channels = _integers(fields.get("ElementNumberOfChannels", "1"))
    sizes = (*_sizes(name, axes), *_sizes(name, channels))
    size = _META_BYTES.get(fields.get("ElementType", "").removeprefix("MET_"), 0)
    binary = fields.get("BinaryData", "").lower() == "true" and "HeaderSize" not in fields
    if not size or not binary or fields.get("NDims") != str(len(axes)):
        raise FileError(
            f"{name} has an unsupported type or layout of voxels; save it as a binary .mha file."
        )
    return Promise(sizes, size, file.tell(), fields.get("CompressedData", "").lower() == "true")


def _lines(file: BinaryIO, name: str) -> Iterator[str]:
    """The lines of a text header without their ends, as long as the header is not absurd."""
    left = MAX_TEXT_HEADER_BYTES
    while line := file.readline(left):
        left -= len(line)
        if left <= 0:
            raise FileError(f"{name} has a header without an end; copy or export it again.")
        yield line.decode("latin-1").strip()


def _integers(text: str) -> tuple[int, ...]:
    words = text.split()
    return tuple(int(word) for word in words) if all(w.isdecimal() for w in words) else ()


def _sizes(name: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes, if an image can have them."""
    if not 1 <= len(sizes) <= MAX_DIMENSIONS or min(sizes) < 1:
        raise FileError(f"{name} declares a size that no image can have; copy or export it again.")
    return sizes


_PARSERS = {Format.NIFTI: _nifti, Format.NRRD: _nrrd, Format.META: _meta, Format.MGH: _mgh}
