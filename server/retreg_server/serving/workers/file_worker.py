"""What the process for files does: it reads what strangers send, and writes what they ask for.

It has a memory limit and can be killed at any time. What was sent is read where it lies in memory
(on Linux); what is written lies for a moment in a folder that the server empties when it starts.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import numpy as np

from retreg import wire
from retreg.about import tokens_of
from retreg.errors import FileError, InputError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.progress import Progress
from retreg_server.serving.workers import look_tasks
from retreg_server.serving.workers.messages import Head, Message, SharedBuffer, SharedImage


class FileWorker:
    """The handler of the process for files: see process_main.Handler.

    key: hexadecimal; the secret by which patients can be compared but not be known.
    """

    def __init__(self, scratch: str, key: str) -> None:
        self._scratch = scratch
        self._key = bytes.fromhex(key)

    def hello(self) -> Head:
        """Write and read a small volume, which imports what takes a while."""
        from retreg.files import read_image, write_image

        with TemporaryDirectory(dir=self._scratch) as folder:
            path = Path(folder) / "small.nrrd"
            write_image(path, Image(np.zeros((1, 2, 2, 2), np.uint8), Grid((2, 2, 2), np.eye(4))))
            read_image(path)
        return {}

    def answer(self, request: Message, progress: Progress) -> Message:  # noqa: ARG002
        """Do the task that the head names."""
        tasks = {
            "read": self._read,
            "transform": self._transform,
            "warped": self._warped,
            "map": self._map,
            "outputs": self._outputs,
        }
        try:
            if look_task := look_tasks.TASKS.get(request.head["task"]):
                return look_task(request)
            with TemporaryDirectory(dir=self._scratch) as folder:
                return tasks[request.head["task"]](request, Path(folder))
        except MemoryError:
            raise FileError(
                "The image does not fit into the memory of the server; crop it or make it coarser."
            ) from None

    def _read(self, request: Message, folder: Path) -> Message:
        """The image in a file, or in the files of a series, under names of our making."""
        from retreg.files import read_image
        from retreg.files.limits import decoded_at_most
        from retreg_server.serving.workers.series_files import unpack, write_parts

        head, content = request.head, request.buffers[0]
        path, series = folder / head["name"], folder / "series"
        with ExitStack() as stack:
            if head["sizes"] or path.suffix == ".zip":
                path = series
                series.mkdir()
            if head["sizes"]:
                write_parts(content.view, head["sizes"], series)
            elif path == series:
                unpack(content.view, series)
            else:
                stack.enter_context(content.as_file(path))
            stack.enter_context(decoded_at_most(head["most_bytes"]))
            return packed(read_image(path, head.get("frame")), self._key)

    def _transform(self, request: Message, folder: Path) -> Message:
        """A result's transform as an ITK file."""
        from retreg.files import write_transform

        result = wire.decode_result(wire.loads(bytes(request.buffers[0].view)))
        path = folder / f"transform.{request.head['suffix']}"
        write_transform(path, result.transform, wire.decode_grid(request.head["grid"]))
        return Message({}, (SharedBuffer.of(path.read_bytes()),))

    def _warped(self, request: Message, folder: Path) -> Message:
        """The moving image on the grid of the fixed one, as a file."""
        from retreg.files import write_image
        from retreg.resample import resample

        text, voxels = request.buffers
        result = wire.decode_result(wire.loads(bytes(text.view)))
        moving = SharedImage.received(request.head["header"], voxels).image
        path = folder / f"warped.{request.head['suffix']}"
        grid = wire.decode_grid(request.head["grid"])
        write_image(path, resample(moving, result.transform, grid))
        return Message({}, (SharedBuffer.of(path.read_bytes()),))

    def _map(self, request: Message, folder: Path) -> Message:
        """A map of a result on the grid of the fixed image, as a file."""
        from retreg.files import write_image
        from retreg.maps import KINDS, registration_map
        from retreg_server.reporting.map_figures import map_picture, world_unit
        from retreg_server.reporting.overlays import write_png

        result = wire.decode_result(wire.loads(bytes(request.buffers[0].view)))
        grid, name = wire.decode_grid(request.head["grid"]), request.head["name"]
        values = registration_map(name, result.transform, result.backward, grid)
        path = folder / f"map.{request.head['suffix']}"
        if request.head["suffix"] == "png":
            write_png(path, map_picture(name, values, world_unit(grid) if KINDS[name].unit else ""))
        else:
            write_image(path, values)
        return Message({}, (SharedBuffer.of(path.read_bytes()),))


    def _outputs(self, request: Message, folder: Path) -> Message:
        """Everything that `retreg register` writes, in a zip."""
        from retreg_server.reporting.result_folder import write_outputs

        text, *voxels = request.buffers
        result = wire.decode_result(wire.loads(bytes(text.view)))
        fixed, moving = (
            SharedImage.received(header, each).image
            for header, each in zip(request.head["headers"], voxels, strict=True)
        )
        written = folder / "out"
        written.mkdir()
        write_outputs(written, fixed, moving, result)
        with ZipFile(folder / "out.zip", "w") as packed:  # its files are compressed themselves
            for path in sorted(written.iterdir()):
                packed.write(path, path.name)
        return Message({}, (SharedBuffer.of((folder / "out.zip").read_bytes()),))


def packed(image: Image, key: bytes) -> Message:
    """An image that was read, for the server, with tokens in place of the patient.

    Raises InputError for voxels that cannot travel.
    """
    tokens = tokens_of(image.about.patient, key)
    image = replace(image, about=replace(image.about, tokens=tokens if any(tokens) else ()))
    if image.array.dtype.name not in wire.DTYPES:
        raise InputError("The voxels are of a type that is not supported; convert them.")
    shared = SharedImage.of(image)
    return Message({"header": shared.header, "address": shared.address}, (shared.voxels,))
