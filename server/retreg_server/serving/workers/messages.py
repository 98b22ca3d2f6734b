"""Messages between the processes of a server, and the large buffers that travel with them.

A message is a JSON object and any number of buffers. Where the system has memory files, a buffer
travels as the file itself: nothing is copied, however large it is, nothing has a name on a disk,
and nothing is left when the processes are killed.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retreg import wire
from retreg.image import Image

if TYPE_CHECKING:
    from retreg_server.serving.memory_account import Claim

Head = dict[str, Any]
HAS_MEMORY_FILES = hasattr(os, "memfd_create")
SMALLEST_FILE = 4 << 20  # each file takes a descriptor, and less than this is copied quickly


class SharedBuffer:
    """A buffer that can be handed to another process.

    view: its bytes. claim: what counts them, for as long as the buffer lives; None where nobody
    counts.
    """

    def __init__(self, nbytes: int, descriptor: int | None = None) -> None:
        """An empty buffer, or the one behind the descriptor of a memory file."""
        self.claim: Claim | None = None
        is_new = descriptor is None
        if is_new and HAS_MEMORY_FILES and nbytes >= SMALLEST_FILE:
            descriptor = os.memfd_create("retreg", os.MFD_CLOEXEC)
            os.ftruncate(descriptor, nbytes)
        self._descriptor = descriptor
        if descriptor is None:
            self.view = memoryview(bytearray(nbytes))
        else:
            access = mmap.ACCESS_WRITE if is_new else mmap.ACCESS_READ
            self.view = memoryview(mmap.mmap(descriptor, nbytes, access=access))

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> SharedBuffer:
        """A buffer with a copy of the data."""
        buffer = cls(len(data))
        buffer.view[:] = data
        return buffer

    @classmethod
    def in_file(cls, data: memoryview) -> SharedBuffer:
        """A memory file with a copy of the data, however small."""
        descriptor = os.memfd_create("retreg", os.MFD_CLOEXEC)
        write_all(descriptor, data)
        return cls(len(data), descriptor)

    @classmethod
    def around(cls, view: memoryview) -> SharedBuffer:
        """A buffer of bytes that lie elsewhere; nothing is copied."""
        buffer = cls(0)
        buffer.view = view
        return buffer

    def __len__(self) -> int:
        return len(self.view)

    def send(self, connection: Connection) -> None:
        """Hand it over; this side keeps it as well."""
        if self._descriptor is None:
            connection.send_bytes(self.view)
        else:
            reduction.send_handle(connection, self._descriptor, 0)

    @contextmanager
    def as_file(self, path: Path) -> Iterator[None]:
        """Let libraries open the content under that path, without a disk if there are memory files.

        The path is a link to the memory file of this process, which goes with the block.
        """
        if not HAS_MEMORY_FILES:
            path.write_bytes(self.view)
            yield
            return
        own = self if self._descriptor is not None else SharedBuffer.in_file(self.view)
        path.symlink_to(f"/proc/self/fd/{own._descriptor}")
        try:
            yield
        finally:
            path.unlink()

    @property
    def is_file(self) -> bool:
        """Whether it travels as a memory file."""
        return self._descriptor is not None

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._descriptor)  # type: ignore[arg-type]
            self._descriptor = None


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write the data at the end of a memory file."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


class BufferWriter:
    """A buffer that grows while its bytes come, and claims them; a large one is a memory file."""

    def __init__(self, claim: Claim | None = None) -> None:
        self._claim = claim
        self._small = bytearray()
        self._descriptor: int | None = None
        self._nbytes = 0

    def __len__(self) -> int:
        return self._nbytes

    def write(self, data: bytes | memoryview) -> None:
        """Append the data. Raises what the claim raises when there is no room for it."""
        if self._claim is not None:
            self._claim.grow(len(data))
        self._nbytes += len(data)
        if self._descriptor is not None:
            write_all(self._descriptor, data)
            return
        self._small += data
        if HAS_MEMORY_FILES and self._nbytes >= SMALLEST_FILE:
            self._descriptor = os.memfd_create("retreg", os.MFD_CLOEXEC)
            write_all(self._descriptor, self._small)
            self._small = bytearray()

    def finished(self) -> SharedBuffer:
        """All that was written; nothing can be written any more."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            buffer = SharedBuffer.around(memoryview(self._small))
        else:
            buffer = SharedBuffer(self._nbytes, descriptor)
        buffer.claim = self._claim
        return buffer

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


@dataclass(frozen=True, eq=False)
class Message:
    """What is sent: plain JSON values, and buffers."""

    head: Head
    buffers: tuple[SharedBuffer, ...] = ()


@dataclass(frozen=True, eq=False)
class SharedImage:
    """An image whose voxels lie in a buffer, in the order of the wire without compression.

    address: under which clients know it, the same for equal images.
    """

    header: str
    voxels: SharedBuffer
    image: Image
    address: str

    @classmethod
    def of(cls, image: Image, address: str | None = None) -> SharedImage:
        """Copy an image into a buffer; without an address it gets that of the wire."""
        array = image.array.astype(image.array.dtype.newbyteorder("<"), copy=False)
        header, mask = wire.image_header(image), wire.mask_bits(image)
        buffer = SharedBuffer(array.nbytes + len(mask))
        np.frombuffer(buffer.view, array.dtype, array.size)[:] = array.reshape(-1)
        buffer.view[array.nbytes :] = mask
        return cls.received(header, buffer, address or wire.image_address(header, buffer.view))

    @classmethod
    def sent(cls, declared: wire.ImageHeader, body: SharedBuffer, address: str) -> SharedImage:
        """The image that a client has sent; without compression its body is not copied."""
        image = wire.decode_image(declared, body.view)
        if declared.encoding != "identity":
            return cls.of(image, address)
        return cls(wire.image_header(image), body, image, address)

    @classmethod
    def received(cls, header: str, voxels: SharedBuffer, address: str = "") -> SharedImage:
        """The image that another process has packed."""
        declared = wire.decode_header(header, len(voxels))
        return cls(header, voxels, wire.decode_image(declared, voxels.view), address)


def send(connection: Connection, head: Head, buffers: Sequence[SharedBuffer] = ()) -> None:
    """Send a message; blocks until the other side takes it. Raises OSError when it is gone."""
    sizes = [[len(buffer), buffer.is_file] for buffer in buffers]
    connection.send_bytes(wire.dumps({**head, "buffers": sizes}))
    for buffer in buffers:
        buffer.send(connection)


def receive(connection: Connection) -> Message:
    """The next message; blocks until there is one. Raises EOFError or OSError at the end."""
    head = wire.loads(connection.recv_bytes())
    buffers = tuple(_received(connection, *each) for each in head.pop("buffers"))
    return Message(head, buffers)


def _received(connection: Connection, nbytes: int, is_file: bool) -> SharedBuffer:
    if is_file:
        return SharedBuffer(nbytes, reduction.recv_handle(connection))
    return SharedBuffer.around(memoryview(connection.recv_bytes()))
