"""Stored values are what is read, whatever the photometric interpretation and compression."""

from __future__ import annotations

import base64
import io

import numpy as np
import PIL.Image
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from retreg.files import read_image

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5 + 10
# The ramp by CharLS, for nothing that is installed with the tests writes JPEG-LS.
RAMP_IN_JPEG_LS = base64.b64decode(
    "/9j/9wALCAAGAAgBAREA/9oACAEBAAAAAAcv6X94AABDI5NjAAAE20kguqq4sqtCr/D/2Q=="
)
PHOTOGRAPHY = "1.2.840.10008.5.1.4.1.1.77.1.5."
LOSSLESS = [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless]


def compressed(path, frames, syntax, folder):
    """Replace the pixels of the file by the frames, compressed."""
    data = pydicom.dcmread(path)
    if syntax == RLELossless:
        data.compress(syntax, generate_instance_uid=False)
    elif syntax != ExplicitVRLittleEndian:
        data.PixelData = encapsulate([stream(frame, syntax, folder) for frame in frames])
        data["PixelData"].is_undefined_length = True
        data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path)
    return path


def stream(pixels, syntax, folder):
    if syntax == JPEGLSLossless:
        assert np.array_equal(pixels, RAMP)
        return RAMP_IN_JPEG_LS
    if syntax == JPEG2000Lossless:
        out = io.BytesIO()
        PIL.Image.fromarray(pixels).save(out, format="JPEG2000")
        return out.getvalue()
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(folder / "itk.dcm"))
    writer.SetUseCompression(True)
    writer.SetCompressor("JPEG")
    writer.Execute(sitk.GetImageFromArray(pixels, isVector=pixels.ndim == 3))
    written = pydicom.dcmread(folder / "itk.dcm")
    assert written.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    return next(pydicom.encaps.generate_frames(written.PixelData, number_of_frames=1))


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name[:12])
@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_stored_values_are_read_and_not_inverted(tmp_path, write_dicom, syntax, interpretation):
    path = write_dicom(tmp_path / "a.dcm", RAMP, PhotometricInterpretation=interpretation)
    image = read_image(compressed(path, [RAMP], syntax, tmp_path))
    np.testing.assert_array_equal(image.array[0, 0], RAMP)


@pytest.mark.parametrize("syntax", LOSSLESS[:4], ids=lambda uid: uid.name[:12])
@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_stored_values_of_16_bits_are_rescaled_once(tmp_path, write_dicom, syntax, interpretation):
    pixels = RAMP.astype(np.uint16) * 200
    path = write_dicom(
        tmp_path / "a.dcm", pixels, PhotometricInterpretation=interpretation,
        RescaleSlope=2, RescaleIntercept=-7,
    )  # fmt: skip
    image = read_image(compressed(path, [pixels], syntax, tmp_path))
    np.testing.assert_array_equal(image.array[0, 0], pixels * 2.0 - 7)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name[:12])
@pytest.mark.parametrize("kind", ["1", "2", "5", "6", "7"])
def test_every_class_of_ophthalmic_photography_is_read(tmp_path, write_dicom, syntax, kind):
    path = write_dicom(tmp_path / "a.dcm", RAMP, SOPClassUID=PHOTOGRAPHY + kind, Modality="OP")
    image = read_image(compressed(path, [RAMP], syntax, tmp_path))
    np.testing.assert_array_equal(image.array[0, 0], RAMP)
    assert image.about.content == "photograph"


@pytest.mark.parametrize("syntax", LOSSLESS[:4], ids=lambda uid: uid.name[:12])
def test_colour_of_a_wide_field_is_read(tmp_path, write_dicom, syntax):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    path = write_dicom(tmp_path / "a.dcm", pixels, SOPClassUID=PHOTOGRAPHY + "5", Modality="OP")
    if syntax == JPEG2000Lossless:
        data = pydicom.dcmread(path)
        data.PhotometricInterpretation = "YBR_RCT"
        data.save_as(path)
    image = read_image(compressed(path, [pixels], syntax, tmp_path))
    np.testing.assert_array_equal(np.moveaxis(image.array[:, 0], 0, 2), pixels)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name[:12])
def test_a_palette_is_applied_to_compressed_indices(tmp_path, write_dicom, syntax):
    table = np.random.default_rng(0).integers(0, 256, (3, 256), dtype=np.uint8)
    names = ("Red", "Green", "Blue")
    palette = {f"{c}PaletteColorLookupTableDescriptor": [256, 0, 8] for c in names}
    for name, entries in zip(names, table, strict=True):
        palette[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
    path = write_dicom(
        tmp_path / "a.dcm", RAMP, PhotometricInterpretation="PALETTE COLOR", **palette
    )
    image = read_image(compressed(path, [RAMP], syntax, tmp_path))
    np.testing.assert_array_equal(image.array[:, 0], table[:, RAMP])


def test_big_endian_values_below_drawings_are_read(tmp_path, write_dicom):
    values = np.arange(-24, 24, dtype=np.int16).reshape(6, 8) * 40
    drawn = (values.view(np.uint16) & 0x0FFF) | np.uint16(0x4000)
    data = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", drawn.view(np.int16)))
    data.BitsStored, data.HighBit = 12, 11
    data.PixelData = drawn.astype(">u2").tobytes()
    data["PixelData"].VR = "OW"
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
    pydicom.dcmwrite(tmp_path / "b.dcm", data, implicit_vr=False, little_endian=False)
    image = read_image(tmp_path / "b.dcm")
    np.testing.assert_array_equal(image.array[0, 0], values)
    assert image.array.dtype.isnative


def test_every_compressed_frame_is_rescaled_by_its_own_slope(tmp_path, write_dicom, enhanced):
    pixels = np.stack([RAMP, RAMP, RAMP])
    path = write_dicom(tmp_path / "a.dcm", pixels, **enhanced(np.arange(3), slopes=[1, 2.5, 4]))
    image = read_image(compressed(path, pixels, JPEGLSLossless, tmp_path))
    np.testing.assert_array_equal(image.array[0, :, 0, 0], [10, 25, 40])


@pytest.mark.parametrize("syntax", LOSSLESS[:4], ids=lambda uid: uid.name[:12])
@pytest.mark.parametrize(("bits", "high"), [(12, 11), (10, 9), (12, 15)])
def test_drawings_in_unused_bits_are_no_values(tmp_path, write_dicom, syntax, bits, high):
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 20
    shift = high + 1 - bits
    drawn = (values << shift) | np.uint16(1 << (0 if shift else 15)) * (values % 3 == 0)
    path = write_dicom(tmp_path / "a.dcm", drawn.astype(np.uint16))
    compressed(path, [drawn.astype(np.uint16)], syntax, tmp_path)
    data = pydicom.dcmread(path)
    data.BitsStored, data.HighBit = bits, high
    data.save_as(path)
    np.testing.assert_array_equal(read_image(path).array[0, 0], values)


@pytest.mark.parametrize("syntax", LOSSLESS[:2], ids=lambda uid: uid.name[:12])
def test_signed_values_below_drawings_keep_their_sign(tmp_path, write_dicom, syntax):
    values = np.arange(-24, 24, dtype=np.int16).reshape(6, 8) * 40
    drawn = (values.view(np.uint16) & 0x0FFF) | np.uint16(0x4000)
    path = write_dicom(tmp_path / "a.dcm", drawn.view(np.int16))
    compressed(path, [drawn], syntax, tmp_path)
    data = pydicom.dcmread(path)
    data.BitsStored, data.HighBit = 12, 11
    data.save_as(path)
    np.testing.assert_array_equal(read_image(path).array[0, 0], values)


@pytest.mark.parametrize("slope", [1, 2.5])
@pytest.mark.parametrize(
    ("padding", "limit"), [(-2000, None), (-32768, None), (32767, None), (-2000, -1500)]
)
def test_padding_becomes_the_background(a_series, padding, limit, slope):
    rng = np.random.default_rng(0)
    pixels = rng.integers(-1024, 2000, (4, 5, 7), dtype=np.int16)
    outside = rng.random(pixels.shape) < 0.3
    lowest = pixels[~outside].min()
    padded = np.where(outside, padding, pixels).astype(np.int16)
    if limit is not None:
        padded[outside] = rng.integers(padding, limit + 1, outside.sum())
    declared = {"PixelPaddingValue": padding}
    if limit is not None:
        declared["PixelPaddingRangeLimit"] = limit
    folder, _ = a_series(pixels=padded, heights=np.arange(4.0), RescaleSlope=slope,
                         RescaleIntercept=-5, **declared)  # fmt: skip
    expected = np.where(outside, lowest, pixels) * slope - 5
    np.testing.assert_allclose(read_image(folder).array[0], expected, rtol=1e-6)


def test_padding_of_a_single_file_becomes_the_background(tmp_path, write_dicom):
    pixels = np.array([[0, 0, 50], [60, 70, 0]], np.uint16)
    path = write_dicom(tmp_path / "a.dcm", pixels, PixelPaddingValue=0)
    np.testing.assert_array_equal(read_image(path).array[0, 0], [[50, 50, 50], [60, 70, 50]])


def test_padding_among_the_values_stays(tmp_path, write_dicom):
    pixels = np.array([[-2000, -2003, 50], [60, -2000, -1998]], np.int16)
    path = write_dicom(tmp_path / "a.dcm", pixels, PixelPaddingValue=-2000)
    np.testing.assert_array_equal(read_image(path).array[0, 0], pixels)


def test_nothing_but_padding_stays_as_it_is(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", np.full((4, 5), 9, np.uint16), PixelPaddingValue=9)
    assert (read_image(path).array == 9).all()


@pytest.mark.parametrize(
    ("given", "spacing"),
    [
        ({"PixelAspectRatio": [2, 1]}, [1, 2, 1]),
        ({"PixelAspectRatio": [3, 4]}, [1, 0.75, 1]),
        ({"PixelAspectRatio": [1, 1]}, [1, 1, 1]),
        ({"PixelAspectRatio": [2, 1], "PixelSpacing": [0.3, 0.2]}, [0.2, 0.3, 1]),
    ],
)
def test_the_ratio_of_the_sides_of_a_pixel_counts_without_a_spacing(
    tmp_path, write_dicom, given, spacing
):
    path = write_dicom(tmp_path / "a.dcm", RAMP, **given)
    np.testing.assert_allclose(read_image(path).grid.spacing, spacing)


@pytest.mark.parametrize(("kind", "padding", "limit"), [
    (np.uint16, 63536, None), (np.uint16, 65535, None), (np.uint16, 60000, 65000),
    (np.int16, -32768, None), (np.int16, 30000, None),
])  # fmt: skip
def test_padding_beyond_the_stored_bits_becomes_the_background(
    tmp_path, write_dicom, kind, padding, limit
):
    values = np.arange(48, dtype=kind).reshape(6, 8) * 40 + 7
    padded = values.copy()
    padded[:2] = padding
    padded[0, :3] = padding if limit is None else limit
    declared = {"PixelPaddingValue": padding}
    if limit is not None:
        declared["PixelPaddingRangeLimit"] = limit
    path = write_dicom(tmp_path / "a.dcm", padded, BitsStored=12, HighBit=11, **declared)
    values[:2] = values[2, 0]
    np.testing.assert_array_equal(read_image(path).array[0, 0], values)


@pytest.mark.parametrize("slope", [0, ""])
def test_a_slope_of_zero_means_none(tmp_path, write_dicom, slope):
    path = write_dicom(tmp_path / "a.dcm", RAMP, RescaleSlope=slope, RescaleIntercept=0)
    np.testing.assert_array_equal(read_image(path).array[0, 0], RAMP)
