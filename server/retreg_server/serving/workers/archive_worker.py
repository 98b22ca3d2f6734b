"""What the process for archives does: it fetches series, and stores what was made of them.

As the process for files it has a memory limit and can be killed at any time. It remembers the
headers of the series that it fetched last; of others it asks the archive again.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from retreg import wire
from retreg.dicom.source import Source
from retreg.errors import FileError
from retreg.image import Image
from retreg.progress import Progress
from retreg_server.dicom.archives import Archive, SeriesName
from retreg_server.dicom.careful_session import Bounds
from retreg_server.serving.workers.file_worker import packed
from retreg_server.serving.workers.messages import Message, SharedImage

_REMEMBERED = 7  # besides the newest


class ArchiveWorker:
    """The handler of the process for archives: see process_main.Handler.

    archives: url, user, password and token by name. key: as of FileWorker. bounds: received_bytes,
    idle_s and total_s of one conversation.
    """

    def __init__(
        self, archives: Mapping[str, Mapping[str, str]], key: str, bounds: Mapping[str, Any]
    ) -> None:
        self._archives = {name: Archive(name, **entry) for name, entry in archives.items()}
        self._key, self._bounds = bytes.fromhex(key), Bounds(**bounds)
        self._sources: dict[tuple[str, SeriesName], Source] = {}  # what was fetched last

    def hello(self) -> dict[str, Any]:
        """Import what takes a while."""
        import retreg_server.dicom.dicomweb  # noqa: F401

        return {}

    def answer(self, request: Message, progress: Progress) -> Message:
        """Do the task that the head names."""
        try:
            return {"fetch": self._fetch, "store": self._store}[request.head["task"]](
                request, progress
            )
        except MemoryError:
            raise FileError(
                "The series does not fit into the memory of the server; choose a smaller one."
            ) from None

    def _fetch(self, request: Message, progress: Progress) -> Message:
        """The image of a series."""
        head = request.head
        wanted = SeriesName(*head["wanted"])
        return packed(self._fetched(head, wanted, progress)[0], self._key)

    def _fetched(
        self, head: Mapping[str, Any], wanted: SeriesName, progress: Progress
    ) -> tuple[Image, Source]:
        from retreg.files.limits import decoded_at_most
        from retreg_server.dicom.dicomweb import fetched_image

        with decoded_at_most(head["most_bytes"]):
            archive = self._archives[head["archive"]]
            image, source = fetched_image(archive, wanted, self._bounds, progress)
        self._sources = dict(list(self._sources.items())[-_REMEMBERED:])
        self._sources[(archive.name, wanted)] = source
        return image, source

    def _store(self, request: Message, progress: Progress) -> Message:
        """UIDs of the stored instances by series; buffers: the result and both images' voxels."""
        from retreg.dicom.objects import Registered
        from retreg_server.dicom.dicomweb import store_objects
        from retreg_server.dicom.object_folder import all_objects

        head, (text, *voxels) = request.head, request.buffers
        images = [
            SharedImage.received(header, each).image
            for header, each in zip(head["headers"], voxels, strict=True)
        ]
        wanted = [SeriesName(*each) for each in head["wanted"]]
        sources = [
            self._sources.get((head["archive"], each)) or self._fetched(head, each, progress)[1]
            for each in wanted
        ]
        result = wire.decode_result(wire.loads(bytes(text.view)))
        made = Registered(images[0], images[1], (sources[0], sources[1]), result, version("retreg"))
        progress("storing in the archive", 0.0)
        archive = self._archives[head["archive"]]
        objects = (data for _, data in all_objects(made, head["kinds"]))
        return Message({"stored": store_objects(archive, objects, self._bounds)})
