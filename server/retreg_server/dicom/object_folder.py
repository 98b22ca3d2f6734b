"""The folder with the DICOM objects of a registration."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from retreg.dicom.new_object import save
from retreg.dicom.objects import KINDS, Registered, objects_of
from retreg.errors import FileError
from retreg_server.dicom.checkerboard import checkerboard_object
from retreg_server.dicom.report import report_object

FOLDER = "dicom"


def all_objects(
    registered: Registered, kinds: Collection[str] = KINDS
) -> Iterator[tuple[str, Any]]:
    """(name of the file below its folder, pydicom data set) of every object of some kinds.

    Those of retreg.dicom.objects, report.dcm, and for photographs checkerboard.dcm. Raises
    FileError.
    """
    yield from objects_of(registered, kinds)
    if "report" in kinds:
        yield "report.dcm", report_object(registered)
    if "series" in kinds and not registered.sources[0].is_placed:
        yield "checkerboard.dcm", checkerboard_object(registered)


def write_objects(folder: Path, registered: Registered) -> Path:
    """Write all objects into folder/dicom, which is replaced when they are complete; its path.

    Raises FileError when they cannot be made or written.
    """
    target = folder / FOLDER
    try:
        staging = Path(tempfile.mkdtemp(prefix=".retreg-", dir=folder))
        try:
            for name, data in all_objects(registered):
                path = staging / name
                path.parent.mkdir(exist_ok=True)
                save(data, path)
            shutil.rmtree(target, ignore_errors=True)
            staging.chmod(0o755)
            staging.replace(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise FileError(
            f"The DICOM objects could not be written to {folder.name} ({error.strerror}); free "
            "some space or choose another folder with -o."
        ) from error
    return target
