"""What the process for archives does: it fetches series, and stores what was made of them.

As the process for files it has a memory limit and can be killed at any time. The files of a series
stay in the folder that the server names until the objects are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from retreg import wire
from retreg.dicom.source import Source
from retreg.errors import FileError
from retreg.progress import Progress
from retreg_server.dicom.archives import Archive, SeriesName
from retreg_server.dicom.careful_session import Bounds
from retreg_server.serving.workers.file_worker import packed
from retreg_server.serving.workers.messages import Message, SharedImage

_REMEMBERED = 7  # besides the newest; others are read from their files again


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
        self._sources: dict[str, Source] = {}  # what was fetched last, by folder

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
        """The image of a series, whose files are left in the folder."""
        from retreg.dicom.source import source_from
        from retreg.files import read_image
        from retreg.files.limits import decoded_at_most
        from retreg_server.dicom.dicomweb import fetch_series

        head, folder = request.head, Path(request.head["folder"])
        folder.mkdir(parents=True)
        wanted = SeriesName(head["study"], head["series"])
        headers = fetch_series(
            self._archives[head["archive"]], wanted, folder, self._bounds, progress
        )
        self._sources = dict(list(self._sources.items())[-_REMEMBERED:])
        self._sources[head["folder"]] = source_from(headers, "The series")
        with decoded_at_most(head["most_bytes"]):
            return packed(read_image(folder), self._key)

    def _store(self, request: Message, progress: Progress) -> Message:
        """UIDs of the stored instances by series; buffers: the result and both images' voxels."""
        from retreg.dicom.objects import Registered
        from retreg.dicom.source import source_of
        from retreg_server.dicom.dicomweb import store_objects
        from retreg_server.dicom.object_folder import all_objects

        head, (text, *voxels) = request.head, request.buffers
        images = [
            SharedImage.received(header, each).image
            for header, each in zip(head["headers"], voxels, strict=True)
        ]
        known = self._sources
        sources = [known[name] if name in known else source_of(name) for name in head["folders"]]
        result = wire.decode_result(wire.loads(bytes(text.view)))
        made = Registered(images[0], images[1], (sources[0], sources[1]), result, version("retreg"))
        progress("making the objects", 0.0)
        objects = [data for _, data in all_objects(made, head["kinds"])]
        progress("storing in the archive", 0.5)
        archive = self._archives[head["archive"]]
        return Message({"stored": store_objects(archive, objects, self._bounds) if objects else {}})
