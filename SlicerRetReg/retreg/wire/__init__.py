"""What travels between client and server: JSON messages and raw voxels.

Every encode_… returns plain JSON values or bytes, every decode_… trusts nothing, and raises
InputError (or one of its kinds) with a sentence when the message is not what it must be.
Coordinates are LPS mm. Precision: affine matrices and geometry are exact; points are rounded to
1e-6 mm and weights to seven digits; a displacement field is at most 0.005 mm off.
"""

from __future__ import annotations

from retreg.wire.errors import encode_error, error_slug, raised_error
from retreg.wire.images import (
    DTYPES,
    ENCODINGS,
    IMAGE_HEADER,
    Encoding,
    ImageHeader,
    decode_header,
    decode_image,
    encode_image,
    image_address,
    image_header,
    mask_bits,
)
from retreg.wire.json_text import dumps, loads
from retreg.wire.models import decode_models, encode_models
from retreg.wire.results import (
    decode_keypoints,
    decode_quality,
    decode_result,
    encode_keypoints,
    encode_quality,
    encode_result,
)
from retreg.wire.transforms import decode_grid, decode_transform, encode_grid, encode_transform

__all__ = [
    "DTYPES",
    "ENCODINGS",
    "IMAGE_HEADER",
    "Encoding",
    "ImageHeader",
    "decode_grid",
    "decode_header",
    "decode_image",
    "decode_keypoints",
    "decode_models",
    "decode_quality",
    "decode_result",
    "decode_transform",
    "dumps",
    "encode_error",
    "encode_grid",
    "encode_image",
    "encode_keypoints",
    "encode_models",
    "encode_quality",
    "encode_result",
    "encode_transform",
    "error_slug",
    "image_address",
    "image_header",
    "loads",
    "mask_bits",
    "raised_error",
]
