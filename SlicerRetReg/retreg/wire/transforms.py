"""Grids and transforms as JSON. A transform is an object with a "type":

affine   moving_from_fixed: 4 x 4 numbers
tps      fixed_points, moving_points: n x 3; weights: n numbers or null; smoothing; kernel
field    grid; encoding: int16 | float32 | float64; data: base64 of little-endian numbers in the
         order of (3, k, j, i); int16 counts hundredths of a millimetre
chain    transforms: list, the first one is applied to the point first
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, get_args

import numpy as np

from retreg.errors import InputError
from retreg.geometry import Grid
from retreg.splines import Kernel
from retreg.transforms import Affine, Chain, DisplacementField, ThinPlateSpline, Transform
from retreg.wire import fields

MAX_CONTROL_POINTS = 5_000  # the fit is cubic in their number
MAX_LINKS = 16
MAX_DEPTH = 4
FIELD_UNIT_MM = 0.01
FIELD_DTYPES: dict[str, np.dtype[Any]] = {
    "int16": np.dtype("<i2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
}


def encode_grid(grid: Grid) -> dict[str, Any]:
    """JSON of a grid; exact."""
    return {"size": list(grid.size), "world_from_index": grid.world_from_index.tolist()}


def decode_grid(message: Any) -> Grid:
    """The grid in a message. Raises GeometryError when it cannot belong to an image."""
    size = fields.sequence(message, "size", 3)
    if len(size) != 3 or not all(isinstance(n, int) and fields.is_number(n) for n in size):
        raise InputError("The field 'size' is not a list of three integers.")
    matrix = fields.array(message, "world_from_index", (4, 4), 4)
    return Grid((size[0], size[1], size[2]), matrix)


def encode_transform(transform: Transform) -> dict[str, Any]:
    """JSON of a transform. Raises InputError for a class that is not one of retreg.transforms."""
    if isinstance(transform, Affine):
        return {"type": "affine", "moving_from_fixed": transform.moving_from_fixed.tolist()}
    if isinstance(transform, ThinPlateSpline):
        weights = transform.weights
        return {
            "type": "tps",
            "fixed_points": fields.rounded_points(transform.fixed_points),
            "moving_points": fields.rounded_points(transform.moving_points),
            "weights": None if weights is None else fields.rounded_weights(weights),
            "smoothing": float(transform.smoothing),
            "kernel": transform.kernel,
        }
    if isinstance(transform, DisplacementField):
        return _encode_field(transform)
    if isinstance(transform, Chain):
        links = [encode_transform(link) for link in transform.transforms]
        return {"type": "chain", "transforms": links}
    raise InputError(f"A transform of the class {type(transform).__name__} cannot be sent.")


def decode_transform(message: Any, depth: int = MAX_DEPTH) -> Transform:
    """The transform in a message; chains may be nested depth levels deep."""
    kind = fields.text(message, "type")
    if kind == "affine":
        return Affine(fields.array(message, "moving_from_fixed", (4, 4), 4))
    if kind == "tps":
        return _decode_tps(message)
    if kind == "field":
        return _decode_field(message)
    if kind == "chain" and depth > 0:
        links = fields.sequence(message, "transforms", MAX_LINKS)
        return Chain(tuple(decode_transform(link, depth - 1) for link in links))
    raise InputError(
        f"The transform type {kind!r} is not known here; use affine, tps, field or a chain of "
        "them that is not deeply nested."
    )


def _decode_tps(message: Any) -> ThinPlateSpline:
    kernels: dict[str, Kernel] = {name: name for name in get_args(Kernel)}
    kernel = fields.text(message, "kernel")
    if kernel not in kernels:
        raise InputError(f"The kernel {kernel!r} is not known; use {' or '.join(kernels)}.")
    limit = MAX_CONTROL_POINTS
    has_weights = fields.take(message, "weights") is not None
    points = [
        fields.array(message, name, (None, 3), limit) for name in ("fixed_points", "moving_points")
    ]
    weights = fields.array(message, "weights", (None,), limit) if has_weights else None
    smoothing = fields.number(message, "smoothing")
    try:
        return ThinPlateSpline(points[0], points[1], smoothing, weights, kernels[kernel])
    except np.linalg.LinAlgError as error:
        raise InputError("The points of the spline do not determine it.") from error


def _encode_field(field: DisplacementField) -> dict[str, Any]:
    vectors, largest = field.vectors_mm, np.abs(field.vectors_mm).max()
    if largest <= 32767 * FIELD_UNIT_MM:
        encoding, vectors = "int16", np.rint(vectors / FIELD_UNIT_MM)
    else:  # float32 resolves 0.008 mm up to 2^17 mm, which is half of that when rounded
        encoding = "float32" if largest < 2**17 else "float64"
    data = np.asarray(vectors, FIELD_DTYPES[encoding]).tobytes()
    return {
        "type": "field",
        "grid": encode_grid(field.grid),
        "encoding": encoding,
        "data": base64.b64encode(data).decode("ascii"),
    }


def _decode_field(message: Any) -> DisplacementField:
    grid = decode_grid(fields.mapping(message, "grid"))
    encoding = fields.text(message, "encoding")
    if encoding not in FIELD_DTYPES:
        raise InputError(
            f"The field encoding {encoding!r} is not known; use {', '.join(FIELD_DTYPES)}."
        )
    dtype = FIELD_DTYPES[encoding]
    i, j, k = grid.size
    count = 3 * i * j * k
    data = fields.take(message, "data")
    if not isinstance(data, str) or len(data) != 4 * -(-count * dtype.itemsize // 3):
        raise InputError(
            f"The field data do not have the length of {count} numbers of type {encoding}."
        )
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("The field data are not valid base64.") from error
    if len(raw) != count * dtype.itemsize:
        raise InputError(f"The field data do not hold {count} numbers of type {encoding}.")
    vectors = np.frombuffer(raw, dtype).reshape(3, *grid.shape).astype(np.float64)
    return DisplacementField(vectors * FIELD_UNIT_MM if encoding == "int16" else vectors, grid)
