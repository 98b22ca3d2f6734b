"""DICOM files and series, compared with SimpleITK's readers and with what was written."""

from __future__ import annotations

import zipfile

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless, generate_uid

from retreg.errors import FileError
from retreg.files import read_image


def by_itk(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def assert_same(image, oracle):
    np.testing.assert_array_equal(image.array[0], sitk.GetArrayViewFromImage(oracle))
    for index in ([0, 0, 0], [n - 1 for n in oracle.GetSize()], [1, 0, 0], [0, 2, 0]):
        expected = oracle.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(image.grid.world(np.array([index]))[0], expected, atol=1e-5)


def test_a_series_is_sorted_by_position_whatever_the_file_names(a_series):
    folder, pixels = a_series()
    (folder / "notes.txt").write_text("not DICOM")
    image = read_image(folder)
    np.testing.assert_array_equal(image.array[0], pixels)
    np.testing.assert_allclose(image.grid.spacing, [0.75, 0.5, 2.5], rtol=1e-9)
    assert_same(image, by_itk(folder))


def test_a_tilted_gantry_gives_a_sheared_grid(a_series, oblique):
    folder, _ = a_series(shift=0.3, count=6)
    row, _, normal = oblique
    last = [10, -20, 30] + 5 * 2.5 * (normal + 0.3 * row)
    np.testing.assert_allclose(read_image(folder).grid.world(np.array([[0, 0, 5]]))[0], last)


@pytest.mark.parametrize(("slope", "intercept", "dtype"), [(1, -1024, np.int32), (2, 0, np.int32),
                                                           (0.5, -3.25, np.float32)])  # fmt: skip
def test_rescaling_is_applied(a_series, slope, intercept, dtype):
    folder, pixels = a_series(RescaleSlope=slope, RescaleIntercept=intercept)
    image = read_image(folder)
    assert image.array.dtype == dtype
    np.testing.assert_allclose(image.array[0], pixels * float(slope) + intercept, rtol=1e-6)
    assert_same(image, by_itk(folder))


def test_a_single_slice_keeps_its_place_in_space(a_series):
    folder, pixels = a_series(count=1)
    (path,) = folder.iterdir()
    for image in (read_image(path), read_image(folder)):
        np.testing.assert_array_equal(image.array[0], pixels)
        assert_same(image, sitk.ReadImage(str(path)))


def test_two_series_of_like_size_are_refused_with_their_number(a_series):
    folder, _ = a_series(count=6)
    a_series(count=4, SeriesInstanceUID=generate_uid(), EchoNumbers=1)
    with pytest.raises(FileError, match="a series with 6 images of 7 x 5; a series with 4"):
        read_image(folder)


def test_a_small_localizer_beside_the_series_is_left_out(a_series):
    folder, pixels = a_series(count=8)
    a_series(count=2, SeriesInstanceUID=generate_uid(), EchoNumbers=1)
    np.testing.assert_array_equal(read_image(folder).array[0], pixels)


@pytest.mark.parametrize(
    ("heights", "message"),
    [
        ([0, 1, 2, 4, 5], "1 slice seems to be missing: slices 3 and 4 of 5 lie 2 mm apart"),
        ([0, 1, 2, 7, 8], "4 slices seem to be missing: slices 3 and 4 of 5 lie 5 mm apart"),
        ([0, 1, 2, 3.2, 4.2, 5.2], "not evenly spaced: slices 3 and 4 of 6 lie 1.2 mm apart"),
        ([0, 1, 2, 2, 3], "same place"),
        ([0, 0, 1, 1, 2, 2], "same place"),
        ([0, 0], "same place"),
    ],
)
def test_slices_that_are_no_regular_stack_are_refused(a_series, heights, message):
    folder, _ = a_series(heights=np.array(heights, float))
    with pytest.raises(FileError, match=message):
        read_image(folder)


def test_positions_rounded_to_a_tenth_are_accepted(a_series):
    heights = np.round(np.arange(20) * 3.3333, 1)
    folder, _ = a_series(heights=heights)
    np.testing.assert_allclose(read_image(folder).grid.spacing[2], 3.333, atol=0.01)


def test_the_same_slice_twice_counts_once(a_series):
    folder, pixels = a_series()
    first = next(folder.iterdir())
    (folder / "copy").write_bytes(first.read_bytes())
    np.testing.assert_array_equal(read_image(folder).array[0], pixels)


def test_slices_of_different_size_or_direction_are_refused(a_series):
    folder, _ = a_series(heights=np.arange(3) * 1.0)
    a_series(heights=np.arange(3, 6) * 1.0, pixels=np.zeros((3, 4, 7), np.int16), EchoNumbers=1)
    with pytest.raises(FileError, match=r"differ in size or colour \(3 of 7 x 5, 3 of 7 x 4"):
        read_image(folder)
    folder, _ = a_series("other", heights=np.arange(3) * 1.0)
    a_series("other", heights=np.arange(3, 6) * 1.0, EchoNumbers=1, PixelSpacing=[1, 1])
    with pytest.raises(FileError, match="parallel planes"):
        read_image(folder)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(FileError, match="no DICOM image"):
        read_image(tmp_path)


def test_pictures_without_an_orientation_lie_in_the_plane_of_a_picture(tmp_path, write_dicom):
    colour = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    path = write_dicom(tmp_path / "a.dcm", colour)
    image = read_image(path)
    np.testing.assert_array_equal(np.moveaxis(image.array[:, 0], 0, 2), colour)
    np.testing.assert_array_equal(image.grid.world_from_index, np.eye(4))
    image = read_image(write_dicom(tmp_path / "b.dcm", colour, PixelSpacing=[0.01, 0.02]))
    np.testing.assert_allclose(image.grid.world_from_index, np.diag([0.02, 0.01, 1, 1]))


def test_several_pictures_without_positions_are_refused(tmp_path, write_dicom):
    for n in range(2):
        write_dicom(tmp_path / f"{n}.dcm", np.zeros((5, 7), np.uint8))
    with pytest.raises(FileError, match="no positions"):
        read_image(tmp_path)


def test_a_palette_becomes_colour(tmp_path, write_dicom):
    index = np.arange(35, dtype=np.uint8).reshape(5, 7) % 4
    table = np.array([[0, 255, 10, 20], [50, 0, 60, 70], [1, 2, 3, 255]], np.uint8)
    names = ("Red", "Green", "Blue")
    palette = {f"{c}PaletteColorLookupTableDescriptor": [4, 0, 8] for c in names}
    palette |= {f"{c}PaletteColorLookupTableData": t.tobytes()
                for c, t in zip(names, table, strict=True)}  # fmt: skip
    path = write_dicom(
        tmp_path / "a.dcm", index, PhotometricInterpretation="PALETTE COLOR", **palette
    )
    np.testing.assert_array_equal(read_image(path).array[:, 0], table[:, index])


def test_enhanced_frames_are_sorted_and_placed_by_their_own_geometry(
    tmp_path, write_dicom, oblique, enhanced
):
    pixels = np.random.default_rng(0).integers(0, 900, (5, 4, 6), dtype=np.uint16)
    heights = np.array([3, 0, 4, 1, 2]) * 1.5
    path = write_dicom(tmp_path / "a.dcm", pixels, **enhanced(heights))
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0], pixels[np.argsort(heights)])
    np.testing.assert_allclose(image.grid.spacing, [0.75, 0.5, 1.5], rtol=1e-8)
    np.testing.assert_allclose(image.grid.world_from_index[:3, 3], [1, 2, 3], atol=1e-8)
    np.testing.assert_allclose(image.grid.direction, np.stack(oblique, axis=1), atol=1e-8)


def test_every_enhanced_frame_is_rescaled_by_its_own_slope(tmp_path, write_dicom, enhanced):
    pixels = np.full((3, 4, 6), 10, np.uint16)
    groups = enhanced(np.arange(3), slopes=[1, 2.5, 4])
    image = read_image(write_dicom(tmp_path / "a.dcm", pixels, **groups))
    np.testing.assert_array_equal(image.array[0, :, 0, 0], [10, 25, 40])


def test_enhanced_time_series_are_refused(tmp_path, write_dicom, enhanced):
    groups = enhanced([0, 1, 2, 0, 1, 2])
    pixels = np.random.default_rng(0).integers(0, 900, (6, 4, 6), dtype=np.uint16)
    path = write_dicom(tmp_path / "a.dcm", pixels, **groups)
    with pytest.raises(FileError, match="same place"):
        read_image(path)


def test_enhanced_frames_that_are_not_described_are_refused(tmp_path, write_dicom, enhanced):
    groups = enhanced([0, 1])
    path = write_dicom(tmp_path / "a.dcm", np.zeros((3, 4, 6), np.uint16), **groups)
    with pytest.raises(FileError, match="declares 3 frames but describes 2"):
        read_image(path)


def test_a_film_is_refused(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", np.zeros((3, 4, 6), np.uint8), FrameTime=40)
    with pytest.raises(FileError, match="film of 3 frames"):
        read_image(path)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGBaseline8Bit])
@pytest.mark.parametrize("colour", [True, False])
def test_compressed_pictures_are_decoded(tmp_path, write_dicom, syntax, colour):
    shape = (16, 24, 3) if colour else (16, 24)
    pixels = np.indices(shape).sum(axis=0).astype(np.uint8) * 4
    path = write_dicom(tmp_path / "a.dcm", pixels)
    data = pydicom.dcmread(path)
    if syntax == RLELossless:
        data.compress(syntax, generate_instance_uid=False)
    else:
        compress_with_pillow(data, pixels, syntax)
    data.save_as(path)
    image = read_image(path).array[:, 0]
    expected = np.moveaxis(np.atleast_3d(pixels), 2, 0)
    np.testing.assert_allclose(image.astype(int), expected, atol=8 if "4.50" in syntax else 0)


def compress_with_pillow(data, pixels, syntax):
    import io

    import PIL.Image
    from pydicom.encaps import encapsulate

    out = io.BytesIO()
    kind = {"format": "JPEG", "quality": 98} if "4.50" in syntax else {"format": "JPEG2000"}
    PIL.Image.fromarray(pixels).save(out, **kind)
    data.PixelData = encapsulate([out.getvalue()])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = syntax
    if data.SamplesPerPixel == 3:
        data.PhotometricInterpretation = "YBR_FULL_422" if "4.50" in syntax else "YBR_RCT"


def test_the_real_series_is_read_as_itk_reads_it(retreg_data, tmp_path):
    with zipfile.ZipFile(retreg_data / "dicom" / "studyforrest_T1w_slices113-272.zip") as archive:
        archive.extractall(tmp_path)
    folder = next(tmp_path.rglob("*.dcm")).parent
    image = read_image(folder)
    assert image.array.shape == (1, 160, 384, 274)
    assert_same(image, by_itk(folder))


def test_the_real_files_are_read_as_itk_reads_them(retreg_data):
    for name in ("sample-op.dcm", "enhanced_mr_small.dcm"):
        path = retreg_data / "dicom" / name
        oracle = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        np.testing.assert_array_equal(read_image(path).array[0], oracle)
