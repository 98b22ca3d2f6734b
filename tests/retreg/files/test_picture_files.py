"""Pictures in and out, compared with NumPy arrays of known content."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib

import numpy as np
import PIL.Image
import pytest
import SimpleITK as sitk

from retreg.errors import FileError
from retreg.files import read_image, write_image
from retreg.geometry import Grid
from retreg.image import Image

HEIGHT, WIDTH = 5, 7
ORIENTATION = 274


def a_picture(dtype, channels, seed=0):
    high = np.iinfo(dtype).max
    shape = (channels, 1, HEIGHT, WIDTH)
    array = np.random.default_rng(seed).integers(0, high, shape, dtype=dtype, endpoint=True)
    return Image(array, Grid.of_picture(WIDTH, HEIGHT))


def a_grey_ramp():
    return np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)


def as_the_eye_sees(stored, orientation):
    """The EXIF standard in words: where row 0 and column 0 of the stored array are shown."""
    return {
        1: lambda a: a,  # top, left
        2: np.fliplr,  # top, right
        3: lambda a: np.rot90(a, 2),  # bottom, right
        4: np.flipud,  # bottom, left
        5: lambda a: a.T,  # left, top
        6: lambda a: np.rot90(a, -1),  # right, top
        7: lambda a: np.rot90(a, 2).T,  # right, bottom
        8: np.rot90,  # left, bottom
    }[orientation](stored)


def test_importing_the_package_needs_numpy_only():
    code = (
        "import sys, retreg.files; late = 'PIL', 'SimpleITK', 'pydicom', 'nibabel', 'tifffile', "
        "'scipy', 'torch'; print([m for m in late if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_survives_png(tmp_path, dtype, channels):
    picture = a_picture(dtype, channels)
    write_image(tmp_path / "a.png", picture)
    read = read_image(tmp_path / "a.png")
    assert read.array.dtype == dtype
    np.testing.assert_array_equal(read.array, picture.array)
    np.testing.assert_array_equal(read.grid.world_from_index, np.eye(4))
    assert read.grid.size == (WIDTH, HEIGHT, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_png_is_read_as_itk_reads_it(tmp_path):
    write_image(tmp_path / "a.png", a_picture(np.uint16, 3))
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.png")))
    assert expected.dtype == np.uint16
    np.testing.assert_array_equal(
        np.moveaxis(read_image(tmp_path / "a.png").array[:, 0], 0, 2), expected
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tiff", "jpg"])
def test_the_orientation_tag_is_applied(tmp_path, ending, orientation):
    stored = np.kron(a_grey_ramp(), np.ones((16, 16), np.uint8)) * 7
    picture = PIL.Image.fromarray(stored)
    exif = picture.getexif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"a.{ending}"
    picture.save(path, exif=exif, **({"quality": 100} if ending == "jpg" else {}))
    expected = as_the_eye_sees(stored, orientation)
    read = read_image(path).array[0, 0]
    assert read.shape == expected.shape
    np.testing.assert_allclose(read.astype(int), expected, atol=2)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_the_orientation_tag_is_applied_to_16_bit_colour(tmp_path, ending, orientation):
    colour = np.moveaxis(a_picture(np.uint16, 3).array[:, 0], 0, 2)
    path = tmp_path / f"a.{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(colour, isVector=True), str(path))
    add_orientation(path, orientation)
    expected = np.stack([as_the_eye_sees(colour[..., c], orientation) for c in range(3)])
    np.testing.assert_array_equal(read_image(path).array[:, 0], expected)


def add_orientation(path, orientation):
    """Write the tag into the bytes of a file that has none."""
    import struct
    import zlib

    content = bytearray(path.read_bytes())
    if path.suffix == ".png":
        body = b"eXIfII*\0" + struct.pack("<IHHHIII", 8, 1, ORIENTATION, 3, 1, orientation, 0)
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        path.write_bytes(content[:33] + chunk + content[33:])
        return
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    entries = [bytes(content[start + 2 + 12 * n :][:12]) for n in range(count)]
    entries = [e for e in entries if struct.unpack_from("<H", e)[0] != ORIENTATION]
    entries.append(struct.pack("<HHIHH", ORIENTATION, 3, 1, orientation, 0))
    entries.sort(key=lambda e: struct.unpack_from("<H", e)[0])
    content += b"\0" * (len(content) % 2)
    struct.pack_into("<I", content, 4, len(content))
    path.write_bytes(content + struct.pack("<H", len(entries)) + b"".join(entries) + b"\0" * 4)


@pytest.mark.parametrize("ending", ["jpg", "tif", "png", "bmp"])
def test_the_resolution_in_the_file_is_ignored(tmp_path, ending):
    PIL.Image.fromarray(a_grey_ramp()).save(tmp_path / f"a.{ending}", dpi=(300, 300))
    grid = read_image(tmp_path / f"a.{ending}").grid
    np.testing.assert_array_equal(grid.world_from_index, np.eye(4))


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_grey_keeps_its_values(tmp_path, ending):
    stored = a_grey_ramp().astype(np.uint16) * 1871
    PIL.Image.fromarray(stored).save(tmp_path / f"a.{ending}")
    read = read_image(tmp_path / f"a.{ending}").array
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read[0, 0], stored)


def test_big_endian_16_bit_grey_keeps_its_values(tmp_path):
    stored = a_grey_ramp().astype(np.uint16) * 1871
    picture = PIL.Image.frombytes("I;16B", (WIDTH, HEIGHT), stored.astype(">u2").tobytes())
    picture.save(tmp_path / "a.tif")
    read = read_image(tmp_path / "a.tif").array
    assert read.dtype.isnative
    np.testing.assert_array_equal(read[0, 0], stored)


def test_floating_point_tiff_keeps_its_values(tmp_path):
    stored = a_grey_ramp().astype(np.float32) / 7 - 1
    PIL.Image.fromarray(stored).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array[0, 0], stored)


def test_one_bit_pictures_become_black_and_white(tmp_path):
    stored = a_grey_ramp() % 2 == 0
    PIL.Image.fromarray(stored).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").array[0, 0], stored * 255)


def test_palette_pictures_become_colour(tmp_path):
    picture = PIL.Image.fromarray(a_grey_ramp() % 3).convert("L")
    picture = PIL.Image.frombytes("P", picture.size, picture.tobytes())
    colours = np.array([[255, 0, 10], [3, 200, 30], [9, 9, 99]], np.uint8)
    picture.putpalette(colours.ravel().tolist())
    picture.save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png").array[:, 0]
    np.testing.assert_array_equal(np.moveaxis(read, 0, 2), colours[a_grey_ramp() % 3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparent_pixels_are_laid_over_black(tmp_path, dtype):
    picture = a_picture(dtype, 4)
    write_image(tmp_path / "a.png", picture)
    colour, alpha = picture.array[:3].astype(float), picture.array[3:].astype(float)
    read = read_image(tmp_path / "a.png").array
    assert read.dtype == dtype
    np.testing.assert_allclose(read, colour * alpha / np.iinfo(dtype).max, atol=0.51)


def test_grey_with_opaque_alpha_stays_grey(tmp_path):
    stored = np.stack([a_grey_ramp(), np.full_like(a_grey_ramp(), 255)], axis=2)
    PIL.Image.fromarray(stored, "LA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").array, a_grey_ramp()[None, None])


def test_cmyk_jpeg_becomes_colour(tmp_path):
    PIL.Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red, green, blue = read_image(tmp_path / "a.jpg").array[:, 0, 2, 3]
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.parametrize(("side", "refused"), [(30, True), (12, False)])
def test_a_jpeg_of_two_photographs_is_refused_and_one_with_a_preview_is_not(
    tmp_path, side, refused
):
    first, second = (
        PIL.Image.fromarray(np.full((n, n, 3), 90, np.uint8)) for n in (30, side)
    )
    stereo = tmp_path / "stereo.jpg"
    first.save(stereo, format="MPO", save_all=True, append_images=[second])
    if refused:
        with pytest.raises(FileError, match="2 pages"):
            read_image(stereo)
    else:
        assert read_image(stereo).grid.size == (30, 30, 1)


def test_a_tiff_of_several_pages_is_refused_but_a_preview_page_is_not(tmp_path):
    page = PIL.Image.fromarray(a_grey_ramp())
    page.save(tmp_path / "stack.tif", save_all=True, append_images=[page, page])
    with pytest.raises(FileError, match="3 pages"):
        read_image(tmp_path / "stack.tif")
    page.save(tmp_path / "preview.tif", save_all=True, append_images=[page.resize((2, 2))])
    np.testing.assert_array_equal(read_image(tmp_path / "preview.tif").array[0, 0], a_grey_ramp())


def test_the_content_decides_about_the_format(tmp_path):
    PIL.Image.fromarray(a_grey_ramp()).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg").array[0, 0], a_grey_ramp())


@pytest.mark.parametrize(
    "array", [np.zeros((1, 2, 3, 4), np.uint8), np.zeros((1, 1, 3, 4), np.float32)]
)
def test_png_refuses_what_it_cannot_hold(tmp_path, array):
    image = Image(array, Grid(array.shape[:0:-1], np.eye(4)))
    with pytest.raises(FileError, match="PNG takes"):
        write_image(tmp_path / "a.png", image)
    assert not list(tmp_path.iterdir())


def test_an_unknown_ending_or_a_missing_folder_is_refused_when_writing(tmp_path):
    with pytest.raises(FileError, match="unknown ending"):
        write_image(tmp_path / "a.gif", a_picture(np.uint8, 1))
    for name in ("a.png", "a.nrrd"):
        with pytest.raises(FileError, match="could not be written"):
            write_image(tmp_path / "missing" / name, a_picture(np.uint8, 1))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", a_picture(np.uint8, 1))
    before = (tmp_path / "a.png").read_bytes()

    def half_a_file(_self, path, *_args, **_options):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(PIL.Image.Image, "save", half_a_file)
    with pytest.raises(FileError, match="could not be written"):
        write_image(tmp_path / "a.png", a_picture(np.uint8, 1, seed=1))
    assert (tmp_path / "a.png").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def a_bitmap(alpha):
    """A bitmap of 32 bits with a mask for the opacity (BITMAPV4HEADER)."""
    colour = np.moveaxis(a_picture(np.uint8, 3).array[:, 0], 0, 2)
    pixels = np.dstack([colour[..., ::-1], np.full((HEIGHT, WIDTH), alpha, np.uint8)])[::-1]
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHI", 108, WIDTH, HEIGHT, 1, 32, 3) + bytes(20) + masks
    header += b"BGRs" + bytes(48)
    start = struct.pack("<IHHI", 14 + 108 + pixels.size, 0, 0, 14 + 108)
    return b"BM" + start + header + pixels.tobytes()


@pytest.mark.parametrize("alpha", [0, 255])
def test_a_bitmap_whose_opacity_was_never_set_keeps_its_colours(tmp_path, alpha):
    (tmp_path / "a.bmp").write_bytes(a_bitmap(alpha))
    read = read_image(tmp_path / "a.bmp")
    np.testing.assert_array_equal(read.array, a_picture(np.uint8, 3).array)


def a_png(depth, colour, data, *chunks):
    """A PNG file with the rows (bytes) of data, written by the standard."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(
            ">I", zlib.crc32(kind + content)
        )

    head = struct.pack(">IIBBBBB", 4, len(data), depth, colour, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row for row in data))
    parts = [(b"IHDR", head), *chunks, (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_16_bit_grey_with_a_transparent_value_keeps_its_values(tmp_path):
    values = np.array([[0, 500, 40000, 65535], [7, 500, 9, 300]])
    rows = [row.astype(">u2").tobytes() for row in values]
    (tmp_path / "a.png").write_bytes(a_png(16, 0, rows, (b"tRNS", struct.pack(">H", 500))))
    read = read_image(tmp_path / "a.png").array
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read[0, 0], np.where(values == 500, 0, values))


def test_16_bit_grey_with_an_opacity_is_refused_with_the_remedy(tmp_path):
    rows = [np.array([700, 65535] * 4, ">u2").tobytes()] * 2
    (tmp_path / "a.png").write_bytes(a_png(16, 4, rows))
    with pytest.raises(FileError, match="save it without the transparency"):
        read_image(tmp_path / "a.png")


def test_several_pictures_in_one_png_are_refused(tmp_path):
    page = PIL.Image.fromarray(a_grey_ramp())
    page.save(tmp_path / "a.png", save_all=True, append_images=[page.rotate(180)])
    with pytest.raises(FileError, match="2 pages"):
        read_image(tmp_path / "a.png")
