"""Image, transform and point-list files: every door through which files come in and go out.

Importing this package needs NumPy only; Pillow, SimpleITK, pydicom, nibabel and tifffile are
imported when a file of their kind is read or written.
"""

from __future__ import annotations

from retreg.files.images import read_image, read_images, read_pair, write_image
from retreg.files.markups import read_markups, write_markups
from retreg.files.transforms import read_transform, write_transform

__all__ = [
    "read_image",
    "read_images",
    "read_markups",
    "read_pair",
    "read_transform",
    "write_image",
    "write_markups",
    "write_transform",
]
