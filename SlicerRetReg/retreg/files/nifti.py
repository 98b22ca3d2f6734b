"""Ways around two habits of ITK's NIfTI reader that lose what is in the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

from retreg.files.headers import Promise, is_nifti_2, nifti_byte_order, unpacked


@contextmanager
def without_namesake(path: Path) -> Iterator[Path]:
    """The file, or a temporary copy when its name would be confused.

    Given a.nii.gz, ITK takes the header from there but the voxels from a.nii, if that exists.
    """
    if not path.name.lower().endswith(".gz") or not path.with_name(path.name[:-3]).exists():
        yield path
        return
    with TemporaryDirectory() as folder:
        yield Path(copyfile(path, Path(folder, path.name)))


@contextmanager
def doubled_slice(path: Path, promise: Promise) -> Iterator[Path]:
    """A temporary copy of a one-slice NIfTI file that holds its slice twice.

    ITK drops every axis of one voxel at the end, and with the third axis the height and the
    obliquity of the slice; some slices it refuses for that reason. Of two slices it drops
    nothing.
    """
    with unpacked(path) as file:
        header = file.read(promise.offset)
        voxels = file.read(promise.decoded_bytes)
    layout, at = ("8q", 16) if is_nifti_2(header) else ("8h", 40)
    layout = nifti_byte_order(header) + layout
    count, *sizes = struct.unpack_from(layout, header, at)
    sizes[2] = 2
    sizes[count:] = [2 if axis == 2 else 1 for axis in range(count, 7)]
    changed = bytearray(header)
    struct.pack_into(layout, changed, at, max(count, 3), *sizes)
    plane = prod(promise.sizes[:2]) * promise.voxel_bytes
    with TemporaryDirectory() as folder:
        doubled = Path(folder, path.name)
        with doubled.open("wb") as out:
            out.write(changed)
            for start in range(0, len(voxels), plane):  # one plane per channel
                out.write(voxels[start : start + plane] * 2)
        yield doubled
