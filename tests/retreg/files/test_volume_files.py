"""Volumes in and out, compared with SimpleITK."""

from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from retreg.errors import FileError, GeometryError, TooLargeError
from retreg.files import read_image, read_images, write_image
from retreg.geometry import Grid
from retreg.image import Image

SIZE = (6, 5, 4)


def a_matrix(kind):
    """world_from_index: oblique, right- or left-handed, or with swapped axes."""
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    if np.linalg.det(turn) < 0:
        turn[:, 0] *= -1
    linear = {
        "oblique": turn,
        "left-handed": turn * [1, 1, -1],
        "swapped": np.array([[0, 0, 1.0], [-1, 0, 0], [0, 1, 0]]),
        "straight": np.eye(3),
    }[kind]
    matrix = np.eye(4)
    matrix[:3, :3] = linear * [0.7, 1.3, 2.9]
    matrix[:3, 3] = (-101.25, 33.1, 7.77)
    return matrix


def a_volume(kind="oblique", dtype=np.int16, channels=1, size=SIZE):
    array = np.random.default_rng(1).uniform(0, 250, (channels, *size[::-1])).astype(dtype)
    return Image(array, Grid(size, a_matrix(kind)))


@pytest.mark.parametrize("kind", ["oblique", "left-handed", "swapped"])
@pytest.mark.parametrize(("ending", "precision"), [("nrrd", 1e-12), ("mha", 1e-12),
                                                   ("nii.gz", 1e-5), ("nii", 1e-5)])  # fmt: skip
def test_a_volume_survives_every_format(tmp_path, ending, precision, kind):
    volume = a_volume(kind)
    path = tmp_path / f"a.{ending}"
    write_image(path, volume)
    read = read_image(path)
    assert read.array.dtype == volume.array.dtype
    np.testing.assert_array_equal(read.array, volume.array)
    np.testing.assert_allclose(
        read.grid.world_from_index, volume.grid.world_from_index, rtol=precision, atol=precision
    )
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["oblique", "left-handed"])
@pytest.mark.parametrize("ending", ["nrrd", "mha", "nii.gz"])
def test_voxels_lie_where_itk_says(tmp_path, ending, kind):
    write_image(tmp_path / f"a.{ending}", a_volume(kind))
    oracle = sitk.ReadImage(str(tmp_path / f"a.{ending}"))
    read = read_image(tmp_path / f"a.{ending}")
    for index in [(0, 0, 0), (5, 0, 2), (1, 4, 3)]:
        expected = oracle.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(read.grid.world(np.array([index]))[0], expected, atol=1e-9)
        i, j, k = index
        assert read.array[0, k, j, i] == oracle[index]


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("ending", ["nrrd", "mha", "nii.gz"])
def test_every_voxel_type_survives(tmp_path, ending, dtype):
    volume = a_volume(dtype=dtype)
    write_image(tmp_path / f"a.{ending}", volume)
    read = read_image(tmp_path / f"a.{ending}")
    assert read.array.dtype == volume.array.dtype
    np.testing.assert_array_equal(read.array, volume.array)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("ending", ["nrrd", "mha", "nii.gz"])
def test_channels_survive(tmp_path, ending, dtype, channels):
    volume = a_volume(dtype=dtype, channels=channels)
    write_image(tmp_path / f"a.{ending}", volume)
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{ending}").array, volume.array)
    assert sitk.ReadImage(str(tmp_path / f"a.{ending}")).GetNumberOfComponentsPerPixel() == channels


@pytest.mark.parametrize("ending", ["nrrd", "mha", "nii.gz"])
def test_a_colour_picture_survives_as_one_slice(tmp_path, ending):
    picture = Image(a_volume(dtype=np.uint8, channels=3, size=(6, 5, 1)).array,
                    Grid.of_picture(6, 5))  # fmt: skip
    write_image(tmp_path / f"a.{ending}", picture)
    read = read_image(tmp_path / f"a.{ending}")
    assert read.is_picture
    np.testing.assert_array_equal(read.array, picture.array)
    np.testing.assert_allclose(read.grid.world_from_index, np.eye(4), atol=1e-7)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("kind", ["oblique", "left-handed", "swapped"])
@pytest.mark.parametrize("ending", ["nrrd", "mha", "nii.gz", "nii"])
def test_a_single_slice_keeps_its_place_in_space(tmp_path, ending, kind, dtype, channels):
    volume = a_volume(kind, size=(6, 5, 1), channels=channels, dtype=dtype)
    write_image(tmp_path / f"a.{ending}", volume)
    read = read_image(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(read.array, volume.array)
    np.testing.assert_allclose(
        read.grid.world_from_index, volume.grid.world_from_index, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("ending", ["nrrd", "mha", "nii.gz", "nii"])
def test_a_two_dimensional_file_becomes_one_slice(tmp_path, ending):
    image = sitk.GetImageFromArray(np.arange(30, dtype=np.int16).reshape(5, 6))
    image.SetSpacing((0.5, 0.25))
    image.SetOrigin((3, -4))
    sitk.WriteImage(image, str(tmp_path / f"a.{ending}"))
    read = read_image(tmp_path / f"a.{ending}")
    assert read.array.shape == (1, 1, 5, 6)
    np.testing.assert_array_equal(read.array[0, 0], np.arange(30).reshape(5, 6))
    expected = np.diag([0.5, 0.25, 1, 1])
    expected[:2, 3] = (3, -4)
    np.testing.assert_allclose(read.grid.world_from_index, expected, atol=1e-6)


@pytest.mark.parametrize("ending", ["nrrd", "mha", "nii.gz"])
def test_a_time_series_is_refused_and_a_series_of_one_is_not(tmp_path, ending):
    volume = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.int16))
    sitk.WriteImage(sitk.JoinSeries([volume, volume]), str(tmp_path / f"two.{ending}"))
    with pytest.raises(FileError, match="6 x 5 x 4 x 2"):
        read_image(tmp_path / f"two.{ending}")
    sitk.WriteImage(sitk.JoinSeries([volume]), str(tmp_path / f"one.{ending}"))
    assert read_image(tmp_path / f"one.{ending}").array.shape == (1, 4, 5, 6)


@pytest.mark.parametrize("ending", ["nrrd", "mha", "nii.gz"])
def test_more_than_four_channels_are_refused(tmp_path, ending):
    many = sitk.GetImageFromArray(np.zeros((2, 3, 4, 5), np.float32), isVector=True)
    sitk.WriteImage(many, str(tmp_path / f"a.{ending}"))
    with pytest.raises(FileError, match="5 values per voxel"):
        read_image(tmp_path / f"a.{ending}")


def test_a_packed_nifti_is_not_confused_with_an_unpacked_one_beside_it(tmp_path):
    write_image(tmp_path / "a.nii.gz", a_volume())
    other = Image(np.zeros_like(a_volume().array), a_volume().grid)
    write_image(tmp_path / "a.nii", other)
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz").array, a_volume().array)
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii").array, other.array)


def test_nifti_rescaling_is_applied(tmp_path):
    write_image(tmp_path / "a.nii", a_volume(dtype=np.int16))
    stored = read_image(tmp_path / "a.nii").array.astype(float)
    content = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<2f", content, 112, 0.5, -3)
    (tmp_path / "a.nii").write_bytes(content)
    np.testing.assert_allclose(read_image(tmp_path / "a.nii").array, stored * 0.5 - 3, atol=1e-5)


@pytest.mark.parametrize("ending", ["nhdr", "mhd"])
def test_headers_with_the_voxels_elsewhere_are_refused(tmp_path, ending):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6), np.int16)),
                    str(tmp_path / f"a.{ending}"))  # fmt: skip
    with pytest.raises(FileError, match="another file"):
        read_image(tmp_path / f"a.{ending}")


def test_a_pair_of_nifti_files_is_refused(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6), np.int16)), str(tmp_path / "a.hdr"))
    with pytest.raises(FileError, match="another file"):
        read_image(tmp_path / "a.hdr")


@pytest.mark.parametrize("ending", ["nrrd", "mha", "nii.gz"])
def test_a_wrong_ending_is_explained(tmp_path, ending):
    write_image(tmp_path / f"a.{ending}", a_volume())
    (tmp_path / f"a.{ending}").rename(tmp_path / "a.dat")
    with pytest.raises(FileError, match=f"rename it to end in .*{ending}"):
        read_image(tmp_path / "a.dat")


@pytest.mark.parametrize("ending", ["nrrd", "nii.gz"])
def test_complex_voxels_are_refused(tmp_path, ending):
    image = sitk.RealAndImaginaryToComplex(sitk.Image(4, 4, 4, sitk.sitkFloat32),
                                           sitk.Image(4, 4, 4, sitk.sitkFloat32))  # fmt: skip
    sitk.WriteImage(image, str(tmp_path / f"a.{ending}"))
    with pytest.raises(FileError):
        read_image(tmp_path / f"a.{ending}")


def test_a_sheared_grid_is_kept_by_nrrd_and_refused_by_nifti(tmp_path):
    matrix = a_matrix("oblique")
    matrix[:3, 2] += 0.4 * matrix[:3, 0]
    volume = Image(a_volume().array, Grid(SIZE, matrix))
    write_image(tmp_path / "a.nrrd", volume)
    read = read_image(tmp_path / "a.nrrd")
    np.testing.assert_allclose(read.grid.world_from_index, matrix, atol=1e-12)
    with pytest.raises(GeometryError, match="right angles"):
        write_image(tmp_path / "a.nii.gz", volume)
    assert [p.name for p in tmp_path.iterdir()] == ["a.nrrd"]


def test_real_volumes_are_read_as_itk_reads_them(retreg_data):
    for name in ("chris/chris_t1.nii.gz", "openms_longitudinal_raw/p01_study1_FLAIR.nii.gz"):
        oracle = sitk.ReadImage(str(retreg_data / "brain" / name))
        read = read_image(retreg_data / "brain" / name)
        np.testing.assert_array_equal(read.array[0], sitk.GetArrayViewFromImage(oracle))
        last = [n - 1 for n in oracle.GetSize()]
        np.testing.assert_allclose(
            read.grid.world(np.array([last]))[0],
            oracle.TransformIndexToPhysicalPoint(last),
            atol=1e-9,
        )


def test_the_voxels_of_a_volume_are_held_once_while_it_is_read(tmp_path):
    path = tmp_path / "a.nii"
    voxels = np.zeros((60, 1000, 1000), np.uint16)
    voxels[7, 8, 9] = 5
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    code = (
        "import resource, sys; from retreg.files import read_image; import SimpleITK\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000\n"
        "before = peak(); array = read_image(sys.argv[1]).array; array[0, 7, 8, 9] += 1\n"
        "print(array[0, 7, 8, 9], peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    value, megabytes = done.stdout.split()
    assert int(value) == 6
    assert float(megabytes) < 1.5 * voxels.nbytes / 1e6


def test_images_that_are_read_together_are_bounded_together(tmp_path, monkeypatch):
    volume = Image(np.zeros((1, 10, 10, 10), np.float32), Grid((10, 10, 10), np.eye(4)))
    inputs = [(tmp_path / f"{name}.nrrd", None) for name in ("first", "second")]
    for path, _ in inputs:
        write_image(path, volume)
    monkeypatch.setattr("retreg.files.images.MAX_TOGETHER_BYTES", 8000)
    assert [image.grid.size for image in read_images(inputs)] == [(10, 10, 10)] * 2
    monkeypatch.setattr("retreg.files.images.MAX_TOGETHER_BYTES", 7999)
    with pytest.raises(TooLargeError, match=r"second\.nrrd is too large beside"):
        read_images(inputs)
