"""Keypoints of an image at any rotation, from a network that knows rotations up to about 65°.

The 24 rotations that permute the axes (4 in 2-D) cover all rotations within 63° (45°). The network
sees the image in each of these views; the view whose keypoints are closest to an affine image of
the template is right or nearly so. Then the image is turned upright by what the best views found,
and brought to the size of the template, and the network looks again, so that the error hardly
depends on rotation and size; the last two looks are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product

import torch
from torch.nn import functional

from retreg_server.registration.networks.centre_of_mass import HeatMapPoints
from retreg_server.registration.networks.input_range import normalised
from retreg_server.registration.networks.keypoint_net import KeypointNet

REWEIGHTINGS = 6
CHUNK = 8
UPRIGHT_LOOKS = 2  # the second corrects what a poor first look left of the rotation
SIZED_LOOKS = 3  # and the third what is left of the size
SIZES = (0.6, 1.6)  # of the template; beyond, an affine is rather wrong than the image so sized
LEAST_VARIANCE = 1e-5
SMALLEST_SCALE = 0.2


@dataclass(frozen=True, eq=False)
class Detection:
    """Keypoints of one image, all in normalised coordinates of the cube (or square).

    points: (k, d). energy, variance: (k,). image_from_template: (d, d + 1), the robust affine
    from the template to the points. residual: its median residual in units of the template's
    size; the smaller, the more the keypoints look like a head (or retina).
    """

    points: torch.Tensor
    energy: torch.Tensor
    variance: torch.Tensor
    image_from_template: torch.Tensor
    residual: float


@torch.no_grad()
def detect(
    net: KeypointNet,
    cube: torch.Tensor,
    template: torch.Tensor,
    pixels: int,
    keep: int = 3,
    recentre: bool = True,
) -> list[Detection]:
    """The keep best detections, best first, each from another view.

    cube: (1, 1, n, n[, n]) float, not normalised, n a multiple of pixels, the side the network
    sees. template: (k, d), the average place of the keypoints in an upright image. recentre: the
    upright looks also move the template's origin to the middle and bring the image to its size.
    """
    dimensions = cube.ndim - 2
    small = normalised(_pooled(cube, cube.shape[-1] // pixels))
    rotations = axis_rotations(dimensions).to(cube.device)
    coarse = [
        _mapped_back(found, index, functional.pad(rotation.T, (0, 1)), template)
        for part in torch.split(rotations, CHUNK)
        for found in [net(torch.cat([turned(small, rotation) for rotation in part]))]
        for index, rotation in enumerate(part)
    ]
    best = sorted(coarse, key=lambda each: each.residual)[:keep]
    smooth = _smoothed(cube, cube.shape[-1] // pixels)
    smooth_from_cube = cube.shape[-1] / smooth.shape[-1]
    for _ in range(SIZED_LOOKS if recentre else UPRIGHT_LOOKS):
        poses = torch.stack([_upright(each.image_from_template, recentre) for each in best])
        found = net(normalised(_rendered(smooth, smooth_from_cube * poses, pixels)))
        earlier = best
        best = [_mapped_back(found, index, pose, template) for index, pose in enumerate(poses)]
    best = [_merged(*looks, template) for looks in zip(earlier, best, strict=True)]
    return sorted(best, key=lambda each: each.residual)


def axis_rotations(dimensions: int) -> torch.Tensor:
    """The proper rotations (24, 3, 3) or (4, 2, 2) that permute and flip the axes."""
    found = []
    for order in permutations(range(dimensions)):
        for signs in product((1.0, -1.0), repeat=dimensions):
            matrix = torch.diag(torch.tensor(signs))[list(order)]
            if torch.linalg.det(matrix) > 0:
                found.append(matrix)
    return torch.stack(found)


def turned(image: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """The cube (b, c, …) in which a point x of the image appears at rotation @ x; no rounding."""
    d = image.ndim - 2
    source = rotation.abs().argmax(dim=1).tolist()
    signs = rotation.sum(dim=1).tolist()
    axes = [1 + d - source[d - 1 - axis] for axis in range(d)]
    flips = [1 + d - axis for axis in range(d) if signs[axis] < 0]
    return image.permute(0, 1, *axes).flip(flips) if flips else image.permute(0, 1, *axes)


def irls_affine(
    fixed: torch.Tensor, moving: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The affine (d, d + 1) from fixed to moving points (k, d), and the residuals (k,).

    Iteratively reweighted least squares with Geman-McClure weights whose scale follows the median.
    """
    ones = torch.ones_like(fixed[:, :1])
    design = torch.cat([fixed, ones], dim=1).double()
    target, base = moving.double(), weights.double()
    current = base
    for _ in range(REWEIGHTINGS):
        root = current.sqrt()[:, None]
        matrix = torch.linalg.lstsq(root * design, root * target).solution
        residuals = (design @ matrix - target).norm(dim=1)
        scale = 2 * residuals.median().clamp_min(1e-9)
        current = base / (1 + (residuals / scale) ** 2) ** 2
    return matrix.T.float(), residuals.float()


def _mapped_back(
    found: HeatMapPoints, index: int, image_from_view: torch.Tensor, template: torch.Tensor
) -> Detection:
    """The detection in image coordinates of the points in one view; (d, d + 1) maps them."""
    d = template.shape[1]
    points = found.points[index] @ image_from_view[:, :d].T + image_from_view[:, d]
    return _detection(points, found.energy[index], found.variance[index], template)


def _merged(first: Detection, second: Detection, template: torch.Tensor) -> Detection:
    """The mean of two looks at the same view: what they miss by is partly by chance."""
    points = (first.points + second.points) / 2
    return _detection(points, second.energy, second.variance, template)


def _detection(
    points: torch.Tensor, energy: torch.Tensor, variance: torch.Tensor, template: torch.Tensor
) -> Detection:
    d = template.shape[1]
    weights = 1 / variance.clamp_min(LEAST_VARIANCE)
    matrix, residuals = irls_affine(template, points, weights / weights.mean())
    volume = float(torch.linalg.det(matrix[:, :d].double()))
    residual = float("inf")
    if volume > SMALLEST_SCALE**d:
        residual = float(residuals.median()) / volume ** (1 / d)
    return Detection(points, energy, variance, matrix, residual)


def _upright(image_from_template: torch.Tensor, recentre: bool) -> torch.Tensor:
    """(d, d + 1) from upright view to image: the rotation of the affine, with its centre and its
    mean scale, or without both.
    """
    d = len(image_from_template)
    u, _, vt = torch.linalg.svd(image_from_template[:, :d].double())
    signs = torch.ones(d, dtype=torch.float64, device=u.device)
    signs[-1] = torch.linalg.det(u @ vt).sign()
    linear = ((u * signs) @ vt).float()
    if not recentre:
        return functional.pad(linear, (0, 1))
    volume = torch.linalg.det(image_from_template[:, :d]).abs()
    return torch.cat([linear * volume.pow(1 / d).clamp(*SIZES), image_from_template[:, d:]], dim=1)


def _rendered(smooth: torch.Tensor, smooth_from_view: torch.Tensor, pixels: int) -> torch.Tensor:
    """The views (b, 1, pixels, …) of one smoothed image; smooth_from_view: (b, d, d + 1)."""
    count, d = smooth_from_view.shape[:2]
    shape = [count, 1, *(pixels,) * d]
    grid = functional.affine_grid(smooth_from_view, shape, align_corners=False)
    source = smooth.expand(count, *smooth.shape[1:])
    return functional.grid_sample(source, grid, align_corners=False)


def _smoothed(image: torch.Tensor, factor: int) -> torch.Tensor:
    """At every place the average over factor pixels along each axis: factor - 1 pixels fewer.

    What is left shares its middle with the image, and is sampled at a factor-th of its resolution
    without aliasing.
    """
    pool = functional.avg_pool2d if image.ndim == 4 else functional.avg_pool3d
    return pool(image, factor, stride=1) if factor > 1 else image


def _pooled(image: torch.Tensor, factor: int) -> torch.Tensor:
    pool = functional.avg_pool2d if image.ndim == 4 else functional.avg_pool3d
    return pool(image, factor) if factor > 1 else image
