"""Images on their way to a server."""

from __future__ import annotations

from collections.abc import Iterator

from retreg import wire
from retreg.image import Image

PIECE_BYTES = 2**19


class Upload:
    """An image encoded for the wire: its header, and the address under which it will be known."""

    def __init__(self, image: Image, encoding: wire.Encoding) -> None:
        self.header, self._body = wire.encode_image(image, encoding)
        self.address = wire.image_address(self.header, self._body)

    def pieces(self) -> Pieces:
        """The body to be sent."""
        return Pieces(self._body)


class Pieces:
    """A body that is sent piece by piece: each gets the whole timeout, and can be the last one."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._is_unwanted = False
        self.sent = 0

    def __len__(self) -> int:
        return len(self._body)

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self), PIECE_BYTES):
            if self._is_unwanted:
                raise OSError("the sending was stopped")
            self.sent = start
            yield self._body[start : start + PIECE_BYTES]

    @property
    def fraction(self) -> float:
        """Of the body that is sent."""
        return self.sent / max(1, len(self))

    def stop(self) -> None:
        """Send no further piece; may be called by another thread."""
        self._is_unwanted = True
