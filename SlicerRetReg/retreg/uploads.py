"""Images on their way to a server."""

from __future__ import annotations

from collections.abc import Iterator

from retreg import wire
from retreg.image import Image
from retreg.progress import Progress

PIECE_BYTES = 2**19


class Upload:
    """An image encoded for the wire: its header, and the address under which it will be known."""

    def __init__(self, image: Image, encoding: wire.Encoding) -> None:
        self.header, self._body = wire.encode_image(image, encoding)
        self.address = wire.image_address(self.header, self._body)

    def pieces(self, stage: str, progress: Progress) -> Pieces:
        """The body to be sent; progress hears of the stage with the fraction that is sent."""
        return Pieces(self._body, stage, progress)


class Pieces:
    """A body that is sent piece by piece: each gets the whole timeout, and can be the last one.

    progress: called with the stage and the fraction that is sent; what it raises ends the sending.
    """

    def __init__(self, body: bytes, stage: str, progress: Progress) -> None:
        self._body = body
        self._stage, self._progress = stage, progress

    def __len__(self) -> int:
        return len(self._body)

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self), PIECE_BYTES):
            self._progress(self._stage, start / len(self))
            yield self._body[start : start + PIECE_BYTES]
