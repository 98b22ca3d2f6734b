"""TIFF of every depth and layout, written by tifffile, compared with the arrays written."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tifffile

from retreg.errors import FileError
from retreg.files import read_image

HEIGHT, WIDTH = 24, 36
TYPES = ["u1", "u2", "u4", "i2", "f4", "f8"]


def colour(dtype="u2", channels=3):
    values = np.random.default_rng(5).integers(0, 250, (HEIGHT, WIDTH, channels))
    kind = np.dtype(dtype)
    return (values * (0.25 if kind.kind == "f" else 250 if kind == np.uint16 else 1)).astype(kind)


def read_back(path):
    return np.moveaxis(read_image(path).array[:, 0], 0, 2)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", TYPES)
def test_colour_keeps_its_values(tmp_path, dtype, planar, big):
    pixels = colour(dtype)
    stored = np.moveaxis(pixels, 2, 0) if planar == "separate" else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar,
                     bigtiff=big)  # fmt: skip
    read = read_image(tmp_path / "a.tif")
    assert read.array.dtype == pixels.dtype
    np.testing.assert_array_equal(np.moveaxis(read.array[:, 0], 0, 2), pixels)
    np.testing.assert_array_equal(read.grid.world_from_index, np.eye(4))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_grey_and_both_byte_orders_keep_their_values(tmp_path, dtype, byteorder):
    for big in (False, True):
        pixels = colour(dtype)
        tifffile.imwrite(tmp_path / "grey.tif", pixels[..., 0], byteorder=byteorder, bigtiff=big)
        tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=byteorder, photometric="rgb",
                         bigtiff=big)  # fmt: skip
        np.testing.assert_array_equal(read_back(tmp_path / "grey.tif"), pixels[..., :1])
        np.testing.assert_array_equal(read_back(tmp_path / "a.tif"), pixels)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("dtype", ["i1", "u2", "i2", "u4", "i4", "f4", "f8"])
def test_grey_keeps_type_and_values_to_its_limits(tmp_path, dtype, big):
    low, high = (-1e30, 1e30)
    if dtype[0] != "f":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    pixels = np.linspace(low, high, 24 * 36).reshape(24, 36).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, bigtiff=big)
    read = read_image(tmp_path / "a.tif").array
    assert read.dtype == pixels.dtype
    np.testing.assert_array_equal(read[0, 0], pixels)


@pytest.mark.parametrize("compression", ["lzw", "deflate", "packbits", "zstd"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_packed_and_tiled_colour_keeps_its_values(tmp_path, compression, tile):
    tifffile.imwrite(tmp_path / "a.tif", colour(), photometric="rgb", tile=tile,
                     compression=compression, bigtiff=True)  # fmt: skip
    np.testing.assert_array_equal(read_back(tmp_path / "a.tif"), colour())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_turned_upright(tmp_path, orientation):
    pixels = colour()
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", planarconfig="contig",
                     extratags=[(274, 3, 1, orientation, True)])  # fmt: skip
    expected = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.swapaxes(0, 1), 6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).swapaxes(0, 1), 8: np.rot90(pixels),
    }[orientation]  # fmt: skip
    np.testing.assert_array_equal(read_back(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize(("dtype", "opaque"), [("u2", 65535), ("f4", 1)])
def test_what_is_transparent_is_black_and_other_extra_samples_are_dropped(tmp_path, dtype, opaque):
    pixels = colour(dtype, 4)
    pixels[..., 3] = opaque
    pixels[: HEIGHT // 2, :, 3] = 0
    for name, extra in (("hidden.tif", "unassalpha"), ("dropped.tif", "unspecified")):
        tifffile.imwrite(tmp_path / name, pixels, photometric="rgb", extrasamples=[extra])
    expected = pixels[..., :3].copy()
    np.testing.assert_array_equal(read_back(tmp_path / "dropped.tif"), expected)
    expected[: HEIGHT // 2] = 0
    np.testing.assert_array_equal(read_back(tmp_path / "hidden.tif"), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_white_is_zero_is_turned_round_at_every_depth(tmp_path, channels):
    pixels = colour("u2", channels).squeeze()
    if channels == 1:
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
        np.testing.assert_array_equal(read_back(tmp_path / "a.tif")[..., 0], 65535 - pixels)
    tifffile.imwrite(tmp_path / "b.tif", pixels.astype("u1").reshape(HEIGHT, WIDTH, -1)[..., 0],
                     photometric="miniswhite")  # fmt: skip
    expected = 255 - pixels.astype("u1").reshape(HEIGHT, WIDTH, -1)[..., 0]
    np.testing.assert_array_equal(read_back(tmp_path / "b.tif")[..., 0], expected)


@pytest.mark.parametrize("big", [False, True])
def test_several_pages_are_refused_and_a_preview_is_not(tmp_path, big):
    with tifffile.TiffWriter(tmp_path / "two.tif", bigtiff=big) as file:
        file.write(colour(), photometric="rgb")
        file.write(colour(), photometric="rgb")
    with pytest.raises(FileError, match="pages"):
        read_image(tmp_path / "two.tif")
    with tifffile.TiffWriter(tmp_path / "preview.tif", bigtiff=big) as file:
        file.write(colour(), photometric="rgb")
        file.write(colour()[::4, ::4], photometric="rgb")
    np.testing.assert_array_equal(read_back(tmp_path / "preview.tif"), colour())


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_a_file_that_is_cut_off_is_refused(tmp_path, compression, planar):
    stored = np.moveaxis(colour(), 2, 0) if planar == "separate" else colour()
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=True) as file:
        file.write(stored, photometric="rgb", planarconfig=planar, compression=compression)
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(FileError, match=r"a\.tif"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("side", [20_000, 2_000_000])
def test_a_picture_that_declares_too_much_is_refused_before_it_is_decoded(tmp_path, side):
    tifffile.imwrite(tmp_path / "a.tif", colour(), photometric="rgb", bigtiff=True,
                     compression="deflate")  # fmt: skip
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        for tag in (256, 257):
            file.pages.first.tags[tag].overwrite(side)
    with pytest.raises(FileError, match=r"million|far more"):
        read_image(tmp_path / "a.tif")


def test_more_than_four_samples_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", colour("u2", 7), photometric="minisblack",
                     planarconfig="contig")  # fmt: skip
    with pytest.raises(FileError, match=r"a\.tif"):
        read_image(tmp_path / "a.tif")


def test_without_tifffile_the_remedy_is_named(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", colour(), photometric="rgb")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(FileError, match="16-bit PNG"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("steps", [(4, 1), (1, 4, 1), (1, 4, 2, 1), (1, *[4] * 25)])
def test_a_picture_on_another_page_than_the_first_is_refused(tmp_path, steps, dtype, big):
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=big) as file:
        for step in steps:
            file.write(colour(dtype)[::step, ::step], photometric="rgb")
    with pytest.raises(FileError, match="pages; save the page to be registered"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_a_picture_with_several_previews_is_read(tmp_path, dtype, big):
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=big) as file:
        for step in (1, 2, 4, 8):
            file.write(colour(dtype)[::step, ::step], photometric="rgb")
    np.testing.assert_array_equal(read_back(tmp_path / "a.tif"), colour(dtype))
