"""What the process for archives does: it gets series, and stores what was made of them.

Series are fetched by DICOMweb and stored so, or they were sent by C-STORE and results are, too.

As the process for files it has a memory limit and can be killed at any time. The files of a series
stay in the folder that the server names until the objects are stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from retreg import wire
from retreg.dicom.source import Source
from retreg.errors import FileError
from retreg.progress import Progress
from retreg_server.dicom.archives import Archive, SeriesName
from retreg_server.dicom.careful_session import Bounds
from retreg_server.dicom.peers import Destination
from retreg_server.serving.workers.file_worker import packed
from retreg_server.serving.workers.messages import Message, SharedImage

_REMEMBERED = 7  # besides the newest; others are read from their files again


class ArchiveWorker:
    """The handler of the process for archives: see process_main.Handler.

    archives: url, user, password and token by name. key: as of FileWorker. bounds: received_bytes,
    idle_s and total_s of one conversation. destinations: the fields of each by name; title: of our
    application entity.
    """

    def __init__(
        self,
        archives: Mapping[str, Mapping[str, str]],
        key: str,
        bounds: Mapping[str, Any],
        destinations: Mapping[str, Mapping[str, Any]],
        title: str,
    ) -> None:
        self._archives = {name: Archive(name, **entry) for name, entry in archives.items()}
        self._destinations = {name: Destination(**entry) for name, entry in destinations.items()}
        self._title = title
        self._key, self._bounds = bytes.fromhex(key), Bounds(**bounds)
        self._sources: dict[str, Source] = {}  # what was fetched last, by folder

    def hello(self) -> dict[str, Any]:
        """Import what takes a while."""
        import retreg_server.dicom.dicomweb  # noqa: F401
        from retreg_server.dicom.quiet import keep_libraries_quiet

        keep_libraries_quiet()
        return {}

    def answer(self, request: Message, progress: Progress) -> Message:
        """Do the task that the head names."""
        tasks = {
            "fetch": self._fetch,
            "unpack": self._unpack,
            "store": self._store,
            "send": self._send,
        }
        try:
            return tasks[request.head["task"]](request, progress)
        except MemoryError:
            raise FileError(
                "The series does not fit into the memory of the server; choose a smaller one."
            ) from None

    def _fetch(self, request: Message, progress: Progress) -> Message:
        """The image of a series, whose files are left in the folder."""
        from retreg.dicom.source import source_from
        from retreg_server.dicom.dicomweb import fetch_series

        head, folder = request.head, Path(request.head["folder"])
        folder.mkdir(parents=True)
        wanted = SeriesName(head["study"], head["series"])
        headers = fetch_series(
            self._archives[head["archive"]], wanted, folder, self._bounds, progress
        )
        self._sources = dict(list(self._sources.items())[-_REMEMBERED:])
        self._sources[head["folder"]] = source_from(headers, "The series")
        return self._image(folder, head["most_bytes"])

    def _unpack(self, request: Message, _progress: Progress) -> Message:
        """The image of a series whose files are enclosed; they are left in the folder."""
        folder = Path(request.head["folder"])
        folder.mkdir(parents=True)
        for number, content in enumerate(request.buffers):
            (folder / f"{number:05}.dcm").write_bytes(content.view)
        return self._image(folder, request.head["most_bytes"])

    def _image(self, folder: Path, most_bytes: int) -> Message:
        from retreg.files import read_image
        from retreg.files.limits import decoded_at_most

        with decoded_at_most(most_bytes):
            return packed(read_image(folder), self._key)

    def _store(self, request: Message, progress: Progress) -> Message:
        """UIDs of the stored instances by series; buffers: the result and both images' voxels."""
        from retreg_server.dicom.dicomweb import store_objects

        objects = [data for _, data in self._objects(request, progress)]
        progress("storing in the archive", 0.5)
        archive = self._archives[request.head["archive"]]
        return Message({"stored": store_objects(archive, objects, self._bounds) if objects else {}})

    def _send(self, request: Message, progress: Progress) -> Message:
        """As _store, to a destination; what could not be sent stays for the next attempt."""
        from retreg.dicom.new_object import save
        from retreg_server.dicom.storage_scu import send_files

        folder = Path(request.head["folders"][0]).parent / "objects"
        stored = folder / "stored.json"
        if not stored.exists():
            by_series: dict[str, list[str]] = {}
            folder.mkdir(exist_ok=True)
            for number, (_, data) in enumerate(self._objects(request, progress)):
                save(data, folder / f"{number:05}.dcm")
                uids = by_series.setdefault(str(data.SeriesInstanceUID), [])
                uids.append(str(data.SOPInstanceUID))
            stored.write_bytes(wire.dumps(by_series))
        destination = self._destinations[request.head["destination"]]
        files = sorted(folder.glob("*.dcm"))
        send_files(destination, self._title, files, self._bounds.idle_s, progress)
        return Message({"stored": wire.loads(stored.read_bytes())})

    def _objects(self, request: Message, progress: Progress) -> Iterator[tuple[str, Any]]:
        """As all_objects, of the images and the result of a request to store them."""
        from retreg.dicom.objects import Registered
        from retreg.dicom.source import source_of
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
        yield from all_objects(made, head["kinds"])
