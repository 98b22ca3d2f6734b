"""Pictures: PNG, JPEG, TIFF and BMP in, PNG out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retreg.errors import FileError
from retreg.files.doors import replacing
from retreg.files.limits import MAX_PICTURE_PIXELS, refuse_large_picture
from retreg.files.picture_pixels import over_black, upright
from retreg.files.tiff import MOST_PREVIEWS, is_deep_tiff, read_deep_tiff
from retreg.geometry import Grid
from retreg.image import Image

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_ORIENTATION = 274  # the EXIF and TIFF tag
_GREY_WITH_ALPHA = 4  # the colour type of PNG


def read_picture(path: Path) -> Image:
    """The picture as (1 or 3, 1, height, width) with the pixel type of the file.

    Transparent pixels are laid over black, palettes become colour, 1-bit becomes 0 and 255.
    Raises FileError, or whatever Pillow raises on damaged files.
    """
    import PIL.Image
    import PIL.TiffImagePlugin  # the one of _FORMATS that preinit leaves out

    PIL.Image.preinit()  # init would load forty formats more
    with path.open("rb") as file:  # given a name, Pillow maps the file and garbles turned TIFFs
        try:
            picture = PIL.Image.open(file, formats=_FORMATS)
        except PIL.Image.DecompressionBombError:
            raise FileError(
                f"{path.name} declares far more than the {MAX_PICTURE_PIXELS // 1_000_000} million "
                "pixels that are accepted; make it smaller."
            ) from None
        except PIL.UnidentifiedImageError:
            file.seek(0)
            if file.read(2) not in (b"II", b"MM"):
                raise
            pixels = read_deep_tiff(path)
        else:
            pixels = _pixels(path, picture)
    channels = np.ascontiguousarray(np.moveaxis(np.atleast_3d(pixels), 2, 0))[:, None]
    return Image(channels, Grid.of_picture(channels.shape[3], channels.shape[2]))


def _pixels(path: Path, picture: Picture) -> np.ndarray:
    """(height, width) or (height, width, 1 or 3), by the decoder that keeps the type."""
    refuse_large_picture(path.name, *picture.size)
    _refuse_stack(path.name, picture)
    if is_deep_tiff(picture):
        return read_deep_tiff(path)
    return _deep_colour(path, picture) if _is_deep_png(path, picture) else _decoded(picture)


def fits_png(image: Image) -> bool:
    """Whether it is one slice of 8- or 16-bit integers with 1, 3 or 4 channels."""
    array = image.array
    return image.is_picture and array.shape[0] != 2 and array.dtype in (np.uint8, np.uint16)


def write_png(path: Path, image: Image) -> None:
    """Write a picture of 8- or 16-bit integers with 1, 3 or 4 channels. Raises FileError."""
    array = image.array
    if not fits_png(image):
        raise FileError(
            f"{path.name} cannot hold {array.dtype} voxels of the shape {array.shape}; PNG takes "
            "one slice of 8- or 16-bit integers, so write .nrrd instead."
        )
    pixels = np.ascontiguousarray(np.moveaxis(array[:, 0], 0, 2))
    with replacing(path, ".png") as temporary:
        if array.dtype == np.uint16 and array.shape[0] > 1:
            import SimpleITK as sitk  # Pillow cannot write colour of 16 bit

            sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(temporary))
        else:
            import PIL.Image

            picture = PIL.Image.fromarray(pixels.squeeze(2) if array.shape[0] == 1 else pixels)
            picture.save(temporary, format="PNG", compress_level=1)  # see reporting.overlays


def _refuse_stack(name: str, picture: Picture) -> None:
    """Several pages of one size are a volume, a film or a stereo pair; smaller ones are previews.

    A preview may come first, and then the picture is on another page.
    """
    count = getattr(picture, "n_frames", 1)
    if picture.format not in ("TIFF", "PNG", "MPO") or count == 1:
        return
    least = picture.size[0] * picture.size[1]
    for page in range(1, min(count, MOST_PREVIEWS + 1)):
        picture.seek(page)
        if picture.size[0] * picture.size[1] >= least or page == MOST_PREVIEWS:
            raise FileError(
                f"{name} holds {count} pages; save the page to be registered as a file of its own."
            )
    picture.seek(0)


def _is_deep_png(path: Path, picture: Picture) -> bool:
    """Whether the file has 16-bit colour, which Pillow would cut down to 8 bit."""
    if picture.format != "PNG":
        return False
    with path.open("rb") as file:
        depth, colour = file.read(26)[24:]
    if depth == 16 and colour == _GREY_WITH_ALPHA:
        raise FileError(
            f"{path.name} has grey values of 16 bits with a transparency, which cannot be read; "
            "save it without the transparency."
        )
    return depth == 16 and colour != 0


def _decoded(picture: Picture) -> np.ndarray:
    """(height, width) or (height, width, 3)."""
    from PIL import ImageOps

    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode == "1":
        picture = picture.convert("L")
    elif picture.mode.startswith("I") and "transparency" in picture.info:
        return _without_transparent(np.asarray(picture), picture.info["transparency"])
    elif picture.mode == "P" or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    elif picture.mode not in ("L", "LA", "RGB", "RGBA", "I", "F") and ";" not in picture.mode:
        picture = picture.convert("RGB")
    pixels = np.asarray(picture)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return over_black(pixels, 255) if picture.mode in ("LA", "RGBA") else pixels


def _without_transparent(pixels: np.ndarray, value: int) -> np.ndarray:
    """16-bit grey of which one value is transparent, over black."""
    return np.where(pixels == value, 0, pixels).astype(np.uint16)


def _deep_colour(path: Path, picture: Picture) -> np.ndarray:
    """(height, width, 1 or 3) of 16-bit colour in a PNG file, decoded by ITK."""
    import SimpleITK as sitk

    orientation = picture.getexif().get(_ORIENTATION, 1)
    picture.load()  # ITK does not notice when such a file is cut off; Pillow does
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="PNGImageIO"))
    if pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise FileError(f"{path.name} has an unusual layout of colours; save it as 16-bit PNG.")
    if pixels.shape[2] == 4:
        pixels = over_black(pixels, 65535)
    return upright(pixels, orientation)
