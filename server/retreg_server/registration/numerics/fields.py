"""Displacement fields on the pixels of images: warping, composing, integrating.

A field (b, d, [z,] y, x) has the channels x, y(, z) in pixels: pixel x of the result looks at
x + field(x). One code path for 2-D and 3-D, align_corners=False throughout.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def identity_grid(shape: tuple[int, ...], device: torch.device | str = "cpu") -> torch.Tensor:
    """Normalised pixel centres (1, *shape, d), channels last in the order x, y(, z)."""
    d = len(shape)
    unit = torch.eye(d, d + 1, device=device)[None]
    return functional.affine_grid(unit, [1, 1, *shape], align_corners=False)


def half_sizes(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Pixels per normalised unit along x, y(, z)."""
    return torch.tensor(shape[::-1], dtype=like.dtype, device=like.device) / 2


def warped(image: torch.Tensor, field: torch.Tensor, outside: str = "border") -> torch.Tensor:
    """image (b, c, *shape) looked up at x + field(x); outside: grid_sample's padding mode."""
    d = field.ndim - 2
    places = []
    for axis, size in enumerate(field.shape[:1:-1]):
        along = torch.arange(size, dtype=field.dtype, device=field.device)
        along = along.reshape([-1 if dimension == d - 1 - axis else 1 for dimension in range(d)])
        places.append((field[:, axis] + along + 0.5) * (2 / size) - 1)
    return functional.grid_sample(
        image, torch.stack(places, dim=-1), align_corners=False, padding_mode=outside
    )


def composed(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The field of: go along first, then along second."""
    return first + warped(second, first)


def integrated(velocity: torch.Tensor, squarings: int) -> torch.Tensor:
    """Where a stationary velocity field leads in unit time (scaling and squaring)."""
    field = velocity / 2**squarings
    for _ in range(squarings):
        field = composed(field, field)
    return field


def interpolated(field: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The values on another number of pixels, their unit unchanged."""
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    return functional.interpolate(field, size=shape, mode=mode, align_corners=False)


def jacobian_determinants(field: torch.Tensor) -> torch.Tensor:
    """Of x + field(x) in every cell of neighbouring pixels: (b, *shape - 1).

    Differences are taken along the edges of the cell that start at its lowest corner.
    """
    d = field.shape[1]
    columns = []
    for axis in range(d):
        slope = field.diff(dim=field.ndim - 1 - axis)
        for other in range(2, field.ndim):
            slope = slope.narrow(other, 0, field.shape[other] - 1)
        columns.append(slope)
    matrix = torch.stack(columns, dim=2).movedim((1, 2), (-2, -1))
    return torch.linalg.det(matrix + torch.eye(d, dtype=field.dtype, device=field.device))
