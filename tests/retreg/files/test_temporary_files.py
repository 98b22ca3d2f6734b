"""What cannot be written while a file is read is told for what it is."""

from __future__ import annotations

import errno
import resource
import tempfile

import numpy as np
import pytest
import SimpleITK as sitk

from retreg.errors import FileError
from retreg.files import read_image

TOLD = r"could not be read because the folder for temporary files .*TMPDIR"


@pytest.fixture
def a_copied_file(tmp_path):
    """A file of which a temporary copy is made to read it: one slice in NIfTI."""
    values = np.random.default_rng(0).integers(0, 900, (1, 64, 64), np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "a.nii.gz"))
    return tmp_path / "a.nii.gz"


def test_a_missing_folder_for_temporary_files_is_told(a_copied_file, monkeypatch):
    def none():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", none)
    with pytest.raises(FileError, match=TOLD):
        read_image(a_copied_file)


def test_a_full_disk_for_temporary_files_is_told(a_copied_file):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(FileError, match=TOLD):
            read_image(a_copied_file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_damaged_file_is_still_called_damaged(a_copied_file):
    a_copied_file.write_bytes(a_copied_file.read_bytes()[:-400])
    with pytest.raises(FileError, match=r"damaged|cut off"):
        read_image(a_copied_file)
