"""Room for the results: reserved, or at least compared with what is free, before the work."""

from __future__ import annotations

import errno
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from retreg.errors import FileError, TooLargeError
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.reporting import output_room
from retreg_server.reporting.output_room import check_room, needed_bytes, refuse_large_result


def no_reservation(*_arguments):
    raise OSError(errno.EOPNOTSUPP, "not supported")



def test_a_folder_with_room_is_accepted_and_left_empty(tmp_path):
    check_room(tmp_path, ("result.json",), 5_000_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_whatever_forbids_the_room_is_told(tmp_path, monkeypatch, code):
    def refuse(*_arguments):
        raise OSError(code, "refused")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(FileError, match=r"may take 300 MB.* has no room"):
        check_room(tmp_path, (), 300_000_000)


@pytest.mark.parametrize("reserves", [True, False])
def test_where_nothing_can_be_reserved_the_free_space_counts(tmp_path, monkeypatch, reserves):
    if reserves:
        monkeypatch.setattr(os, "posix_fallocate", no_reservation)
    else:
        monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    check_room(tmp_path, (), 900_000)
    with pytest.raises(FileError, match="no room"):
        check_room(tmp_path, (), 1_100_000)


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("curved", [False, True])
def test_more_files_need_more_room(maps, curved):
    grid = Grid((50, 40, 30), np.eye(4))
    volume = Image(np.zeros((1, 30, 40, 50), np.int16), grid)
    needed = needed_bytes(volume, volume, curved, maps)
    assert needed >= 2 * volume.array.nbytes + curved * 3 * 8 * 60_000 + maps * 4 * 4 * 60_000
    assert needed < 2 * volume.array.nbytes + 40 * 60_000 + 20_000_000


def test_a_warped_image_that_is_too_large_beside_both_is_refused(monkeypatch):
    """A fine grid of small numbers, and large numbers to put on it."""
    fine = Image(np.zeros((1, 40, 40, 40), np.uint8), Grid((40, 40, 40), np.eye(4)))
    precise = Image(np.zeros((1, 10, 10, 10), np.float64), Grid((10, 10, 10), np.eye(4)))
    monkeypatch.setattr(output_room, "MOST_AT_ONCE_BYTES", 500_000)
    refuse_large_result(precise, fine)
    with pytest.raises(TooLargeError, match="on the grid of the fixed"):
        refuse_large_result(fine, precise)
