"""FreeSurfer's volumes, compared with nibabel."""

from __future__ import annotations

import gzip
import struct
import sys

import nibabel
import numpy as np
import pytest

from retreg.errors import FileError
from retreg.files import read_image

CORONAL = np.array([[-1.0, 0, 0, 120], [0, 0, 1.5, -80], [0, -1, 0, 110], [0, 0, 0, 1]])
OBLIQUE = np.array([[0.6, -0.8, 0, 3], [0.8, 0.6, 0, -7], [0, 0, 2, 11], [0, 0, 0, 1.0]])
VOXELS = np.random.default_rng(2).integers(0, 120, (7, 6, 5))


def a_file(path, affine=CORONAL, dtype="u1", voxels=VOXELS):
    nibabel.MGHImage(voxels.astype(dtype), affine).to_filename(path)
    return path


@pytest.mark.parametrize("affine", [CORONAL, OBLIQUE])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
@pytest.mark.parametrize("ending", ["mgz", "mgh", "mgh.gz"])
def test_a_freesurfer_volume_is_read_where_nibabel_places_it(tmp_path, ending, dtype, affine):
    path = a_file(tmp_path / "stored.mgz", affine, dtype)
    if ending == "mgh":
        path.write_bytes(gzip.decompress(path.read_bytes()))
    read = read_image(path.rename(tmp_path / f"a.{ending}"))
    np.testing.assert_array_equal(read.array[0].T, VOXELS)
    assert read.array.dtype == np.dtype(dtype)
    np.testing.assert_allclose(
        read.grid.world_from_index, np.diag([-1, -1, 1, 1]) @ affine, atol=1e-4
    )


def test_several_frames_are_refused(tmp_path):
    with pytest.raises(FileError, match="3 frames"):
        read_image(a_file(tmp_path / "a.mgz", voxels=np.stack([VOXELS] * 3, -1)))


def test_a_volume_that_is_cut_off_or_renamed_is_refused(tmp_path):
    content = gzip.decompress(a_file(tmp_path / "a.mgz").read_bytes())
    (tmp_path / "cut.mgh").write_bytes(content[:300])
    with pytest.raises(FileError, match="cut off"):
        read_image(tmp_path / "cut.mgh")
    (tmp_path / "a.img").write_bytes(content)
    with pytest.raises(FileError, match=r"end in \.mgz or \.mgh"):
        read_image(tmp_path / "a.img")


def test_a_volume_that_declares_too_much_is_refused_before_it_is_decoded(tmp_path):
    header = struct.pack(">7i", 1, 4000, 4000, 4000, 1, 3, 0).ljust(284, b"\0")
    (tmp_path / "a.mgz").write_bytes(gzip.compress(header + bytes(1000)))
    with pytest.raises(FileError, match="GB of voxels"):
        read_image(tmp_path / "a.mgz")


def test_without_nibabel_the_remedy_is_named(tmp_path, monkeypatch):
    path = a_file(tmp_path / "a.mgz")
    monkeypatch.setitem(sys.modules, "nibabel.freesurfer.mghformat", None)
    with pytest.raises(FileError, match="mri_convert"):
        read_image(path)
