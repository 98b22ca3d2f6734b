"""The folder with the DICOM objects of a registration."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from retreg.dicom.new_object import save
from retreg.dicom.objects import Registered, objects_of
from retreg.errors import FileError

FOLDER = "dicom"


def write_objects(folder: Path, registered: Registered) -> Path:
    """Write all objects into folder/dicom, which is replaced when they are complete; its path.

    Raises FileError when they cannot be made or written.
    """
    target = folder / FOLDER
    try:
        staging = Path(tempfile.mkdtemp(prefix=".retreg-", dir=folder))
        try:
            for name, data in objects_of(registered):
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
