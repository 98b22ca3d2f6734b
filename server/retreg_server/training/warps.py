"""Random smooth warps of images in normalised coordinates, in 2-D and 3-D.

A warp takes a point of the image to a point of the anatomy it shows:
anatomy = linear(x + displacement(x)). Images are rendered by looking anatomy up at every pixel;
where a landmark of the anatomy lies in the image is computed by inverting the very same
interpolated displacement, so that the truth is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from retreg_server.registration.networks.centre_of_mass import pixel_centres

LATTICE = 16  # points along each axis on which displacements are stored
SQUARINGS = 5
INVERSION_STEPS = 40


@dataclass(frozen=True)
class WarpRanges:
    """How far random warps go.

    angle: largest rotation in degrees (180 covers all rotations). scale: largest change of size,
    of all axes together and once more of each axis. shear: largest tangent. shift: largest offset
    in normalised units. bend: standard deviation of the velocity, in normalised units.
    """

    angle: float
    scale: float = 0.15
    shear: float = 0.08
    shift: float = 0.2
    bend: float = 0.03


@dataclass(frozen=True, eq=False)
class Warp:
    """linear: (d, d + 1). displacement: (1, d, LATTICE, …), channels x, y(, z)."""

    linear: torch.Tensor
    displacement: torch.Tensor

    def anatomy_at_pixels(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Where each pixel of an image of that shape looks: (1, *shape, d), for grid_sample."""
        d = len(shape)
        mode = "bilinear" if d == 2 else "trilinear"
        # linear(x + u) = linear(x) + A u, and A u is cheaper on the lattice than at the pixels.
        turned = torch.einsum("ij,bj...->bi...", self.linear[:, :d], self.displacement)
        points = functional.interpolate(turned, size=shape, mode=mode, align_corners=False)
        for row in range(d):
            points[:, row] += self.linear[row, d]
            for axis in range(d):
                places = pixel_centres(shape[-1 - axis], points.device)
                points[:, row] += self.linear[row, axis] * places.reshape(-1, *(1,) * axis)
        return points.movedim(1, -1)

    def anatomy_of(self, image_points: torch.Tensor) -> torch.Tensor:
        """Points of the anatomy (n, d) that are seen at points of the image (n, d)."""
        d = image_points.shape[1]
        moved = image_points + self._offsets(image_points)
        return moved @ self.linear[:, :d].T + self.linear[:, d]

    def image_of(self, anatomy_points: torch.Tensor) -> torch.Tensor:
        """Points of the image (n, d) at which points of the anatomy (n, d) are seen."""
        d = anatomy_points.shape[1]
        inverse = torch.linalg.inv(self.linear[:, :d])
        target = (anatomy_points - self.linear[:, d]) @ inverse.T
        points = target
        for _ in range(INVERSION_STEPS):
            points = target - self._offsets(points)
        return points

    def _offsets(self, points: torch.Tensor) -> torch.Tensor:
        return sample_points(self.displacement, points)


def sample_points(field: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Values (n, c) of a field (1, c, [z,] y, x) at normalised points (n, d), edges repeated."""
    n, d = points.shape
    grid = points.reshape(1, n, *(1,) * (d - 1), d)
    values = functional.grid_sample(field, grid, padding_mode="border", align_corners=False)
    return values.reshape(field.shape[1], n).T


def random_warp(
    dimensions: int, ranges: WarpRanges, anatomy_per_image: float, generator: torch.Generator
) -> Warp:
    """A random warp; anatomy_per_image: half side of the image over half side of the anatomy."""
    linear = random_rotation(dimensions, ranges.angle, generator)
    linear = linear @ _random_stretch(dimensions, ranges, generator)
    shift = ranges.shift * (2 * _uniform((dimensions,), generator) - 1)
    matrix = anatomy_per_image * torch.cat([linear, -(linear @ shift)[:, None]], dim=1)
    return Warp(matrix, random_diffeomorphism(dimensions, ranges.bend, generator))


def random_rotation(dimensions: int, angle: float, generator: torch.Generator) -> torch.Tensor:
    """A rotation (d, d) by up to angle degrees about a random axis (Rodrigues' formula)."""
    turn = math.radians(angle) * _uniform((1,), generator).sqrt()
    if dimensions == 2:
        turn = turn * (1 - 2 * torch.randint(0, 2, (1,), generator=generator, device=turn.device))
        c, s = torch.cos(turn), torch.sin(turn)
        return torch.cat([torch.cat([c, -s]), torch.cat([s, c])]).reshape(2, 2)
    axis = functional.normalize(_normal((3,), generator), dim=0)
    x, y, z = axis
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
    unit = torch.eye(3, device=axis.device)
    return unit + torch.sin(turn) * cross + (1 - torch.cos(turn)) * (cross @ cross)


def _random_stretch(
    dimensions: int, ranges: WarpRanges, generator: torch.Generator
) -> torch.Tensor:
    whole = ranges.scale * (2 * _uniform((1,), generator) - 1)
    each = 0.5 * ranges.scale * (2 * _uniform((dimensions,), generator) - 1)
    shear = ranges.shear * (2 * _uniform((dimensions, dimensions), generator) - 1)
    return torch.diag(torch.exp(whole + each)) + shear.triu(1)


def random_diffeomorphism(
    dimensions: int, strength: float, generator: torch.Generator
) -> torch.Tensor:
    """The displacement (1, d, LATTICE, …) of a random stationary velocity field.

    The velocity is smooth noise at one of several scales, integrated by scaling and squaring
    (Arsigny et al. 2006).
    """
    points = int(torch.randint(3, 7, (1,), generator=generator, device=generator.device))
    amount = strength * float(_uniform((1,), generator)) / 2**SQUARINGS
    field = amount * smooth_noise(dimensions, points, (LATTICE,) * dimensions, generator)
    identity = functional.affine_grid(
        torch.eye(dimensions, dimensions + 1, device=field.device)[None],
        [1, 1, *(LATTICE,) * dimensions],
        align_corners=False,
    )
    for _ in range(SQUARINGS):
        grid = identity + field.movedim(1, -1)
        field = field + functional.grid_sample(
            field, grid, padding_mode="border", align_corners=False
        )
    return field


def smooth_noise(
    channels: int, points: int, shape: tuple[int, ...], generator: torch.Generator
) -> torch.Tensor:
    """Gaussian noise on points per axis, interpolated to (1, channels, *shape)."""
    noise = _normal((1, channels, *(points,) * len(shape)), generator)
    if len(shape) == 2:
        return functional.interpolate(noise, size=shape, mode="bicubic", align_corners=False)
    # Trilinear interpolation twice is smooth enough and far cheaper than cubic in three axes.
    middle = tuple(min(n, 4 * points) for n in shape)
    noise = functional.interpolate(noise, size=middle, mode="trilinear", align_corners=False)
    noise = functional.avg_pool3d(functional.pad(noise, (1,) * 6, mode="replicate"), 3, stride=1)
    return functional.interpolate(noise, size=shape, mode="trilinear", align_corners=False)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)
