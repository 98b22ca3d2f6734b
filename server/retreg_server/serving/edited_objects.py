"""The DICOM objects of a result that was edited on the page, beside its other files."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from retreg.dicom.objects import Registered
from retreg.dicom.source import Source, source_of
from retreg.errors import FileError, RetRegError
from retreg.files.formats import Format, recognised
from retreg_server.dicom.object_folder import FOLDER, write_objects
from retreg_server.reporting.result_reader import StoredResult

_NOT_FOUND = (
    "There are no DICOM objects of it, since the DICOM images are not beside the results; put them "
    "there and store it again."
)


def write_edited_objects(edited: StoredResult, before: StoredResult) -> str:
    """Write the objects of an edited result whose images come from DICOM files.

    Returns why there are none, in a sentence; nothing when there are some, or when neither the
    images are DICOM nor the result before had such objects.
    """
    paths = before.inputs
    if not all(path and _is_dicom(path) for path in paths):
        had_some = (before.folder / FOLDER).is_dir()
        return _NOT_FOUND if had_some else ""
    try:
        sources = _whole(paths[0]), _whole(paths[1])
        result = edited.result
        made = Registered(before.fixed, before.moving, sources, result, version("retreg"))
        write_objects(edited.folder, made)
    except RetRegError as error:
        return f"There are no DICOM objects of it: {error}"
    return ""


def _is_dicom(path: Path) -> bool:
    """Of a folder it is not asked what it holds: images are read from those of DICOM only."""
    try:
        return path.is_dir() or recognised(path) is Format.DICOM
    except (FileError, OSError):
        return False


def _whole(path: Path | None) -> Source:
    """The source of an image that is all of its file. Raises FileError for one of several."""
    assert path is not None
    source = source_of(path)
    if len(source.frames) > 1 and not source.is_placed:
        raise FileError(
            "A picture of a file with several was registered, and the result does not say which; "
            "register it again with --dicom."
        )
    return source
