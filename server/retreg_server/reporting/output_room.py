"""Whether the results will fit, found out before the work and not after it."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from retreg.errors import FileError, TooLargeError
from retreg.files.limits import gigabytes
from retreg.image import Image

SMALL_FILES_BYTES = 16_000_000  # overlay, keypoints, result.json and pictures of the maps
MOST_AT_ONCE_BYTES = 1_900_000_000  # of voxels, for 2.5 GB of memory in all
FIELD_BYTES, MAP_BYTES, MAPS = 24, 4, 4  # of a voxel


def refuse_large_result(fixed: Image, moving: Image) -> None:
    """Raise TooLargeError when the images and the warped one, with a copy to write, are too large.

    The warped image has the grid of the fixed and the voxels of the moving one.
    """
    warped = _warped_bytes(fixed, moving)
    if fixed.array.nbytes + moving.array.nbytes + 2 * warped > MOST_AT_ONCE_BYTES:
        raise TooLargeError(
            f"The moving image would have {gigabytes(warped)} of voxels on the grid of the fixed "
            "one, which is too much beside both; crop them or make them coarser."
        )


def needed_bytes(fixed: Image, moving: Image, curved: bool, maps: bool) -> int:
    """What the files of one result take at most: nothing is counted as compressed.

    curved: whether the transform may be a field of displacements.
    """
    warped = _warped_bytes(fixed, moving) * (2 if fixed.is_picture else 1)
    per_voxel = 2 * FIELD_BYTES * curved + MAP_BYTES * MAPS * maps  # there and back
    others = int(np.prod(fixed.grid.size)) * per_voxel
    return fixed.array.nbytes + warped + others + SMALL_FILES_BYTES


def _warped_bytes(fixed: Image, moving: Image) -> int:
    """Of the moving image on the grid of the fixed one."""
    return int(np.prod(fixed.grid.size)) * len(moving.array) * moving.array.itemsize


def check_room(folder: Path, names: tuple[str, ...], count: int) -> None:
    """Raise FileError unless count bytes fit into folder and names can be written there.

    The room is taken and given back where the system can do that, which finds quotas and limits
    of file sizes too.
    """
    blocked = [name for name in names if (folder / name).is_dir()]
    if blocked:
        raise FileError(
            f"In the output folder {folder.name}, {blocked[0]} is a folder; move it away or "
            "choose another folder with -o."
        )
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            if not _reserved(probe.fileno(), count) and shutil.disk_usage(folder).free < count:
                raise OSError(errno.ENOSPC, "no room")
    except OSError:
        raise FileError(
            f"The results may take {count / 1e6:.0f} MB, for which the output folder {folder.name} "
            "has no room; free some space or choose another folder with -o."
        ) from None


def _reserved(file: int, count: int) -> bool:
    """Whether count bytes were reserved for the open file; False where that cannot be done.

    Raises OSError when there is no room for them.
    """
    if not hasattr(os, "posix_fallocate"):
        return False
    try:
        os.posix_fallocate(file, 0, count)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            return False
        raise
    return True
