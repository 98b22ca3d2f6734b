"""Detection at any rotation, with a network made of templates that knows upright images only."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn
from torch.nn import functional

from retreg_server.registration.keymorph.detection import (
    _rendered,
    _smoothed,
    axis_rotations,
    detect,
    irls_affine,
    turned,
)
from retreg_server.registration.networks.centre_of_mass import centre_of_mass

SIDE = 48


class Beacons(nn.Module):
    """Finds spots by their brightness, but swaps them when the image is not roughly upright."""

    def __init__(self, template, limit):
        super().__init__()
        self.template, self.limit = template, limit

    def forward(self, images):
        count = len(self.template)
        levels = (torch.arange(count) + 1.0) / (count + 1.0)
        width = 0.3 / (count + 1)
        flat = (functional.avg_pool3d(images, 3, stride=1, padding=1) - images).abs() < width
        maps = torch.cat([flat & ((images - level).abs() < width) for level in levels], dim=1)
        found = centre_of_mass(maps)
        centred = found.points - found.points.mean(dim=1, keepdim=True)
        reference = self.template - self.template.mean(dim=0)
        u, _, vt = torch.linalg.svd(centred.transpose(1, 2) @ reference)
        trace = (u @ vt).diagonal(dim1=1, dim2=2).sum(dim=1)
        lost = trace < self.limit
        found.points[lost] = found.points[lost][:, (5 * torch.arange(count) + 3) % count]
        return found


def spots(points, side=SIDE, radius=0.2):
    """A cube with one ball of its own brightness at each point, and the brightest in the middle."""
    d = points.shape[1]
    eye = torch.eye(d, d + 1)[None]
    lattice = functional.affine_grid(eye, [1, 1, *(side,) * d], align_corners=False)[0]
    cube = (lattice.norm(dim=-1) < 0.25).float()
    for index, point in enumerate(points):
        cube[(lattice - point).norm(dim=-1) < radius] = (index + 1) / (len(points) + 1)
    return cube[None, None]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_axis_rotations_are_all_proper_and_turn_images_without_rounding(dimensions):
    rotations = axis_rotations(dimensions)
    assert len({tuple(r.flatten().tolist()) for r in rotations}) == (4 if dimensions == 2 else 24)
    image = torch.rand(1, 1, *(6,) * dimensions)
    place = centre_of_mass(image**8).points[0]
    for rotation in rotations:
        assert torch.linalg.det(rotation) == 1
        moved = centre_of_mass(turned(image, rotation) ** 8).points[0]
        assert (moved - place @ rotation.T).abs().max() < 1e-6


@pytest.mark.parametrize("angle", [0, 50, 100, 180])
def test_a_turned_volume_gives_the_turned_keypoints(angle):
    order = torch.arange(12)
    height = (2 * order + 1) / 12 - 1
    turn = order * torch.pi * (3 - 5**0.5)
    ring = (1 - height**2).sqrt()
    template = 0.6 * torch.stack([ring * turn.cos(), ring * turn.sin(), height], dim=1)
    turn = Rotation.from_rotvec(angle * torch.tensor([0.48, 0.6, 0.64]).numpy(), degrees=True)
    expected = template @ torch.from_numpy(turn.as_matrix()).float().T
    net = Beacons(template, limit=1 + 2 * 0.42)  # knows rotations up to 65 degrees
    best = detect(net, spots(expected), template, SIDE)[0]
    assert (best.points - expected).norm(dim=1).median() < 0.04
    assert (best.image_from_template[:, :3] - torch.from_numpy(turn.as_matrix())).abs().max() < 0.1


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_view_that_is_not_moved_shows_the_average_of_whole_blocks(dimensions):
    image = torch.rand(1, 1, *(12,) * dimensions)
    pool = functional.avg_pool2d if dimensions == 2 else functional.avg_pool3d
    smooth = _smoothed(image, 2)
    still = 12 / smooth.shape[-1] * torch.eye(dimensions, dimensions + 1)[None]
    view = _rendered(smooth, still.expand(2, -1, -1), 6)
    assert view.shape == (2, 1, *(6,) * dimensions)
    torch.testing.assert_close(view[1], pool(image, 2)[0], atol=1e-5, rtol=0)


def test_the_robust_affine_ignores_a_third_of_wrong_points():
    generator = torch.Generator().manual_seed(0)
    fixed = torch.randn(60, 2, generator=generator)
    linear, offset = torch.tensor([[0.8, -0.5], [0.4, 1.1]]), torch.tensor([0.3, -0.2])
    moving = fixed @ linear.T + offset
    moving[:20] += 3 * torch.randn(20, 2, generator=generator)
    matrix, residuals = irls_affine(fixed, moving, torch.ones(60))
    assert (matrix[:, :2] - linear).abs().max() < 1e-2
    assert (matrix[:, 2] - offset).abs().max() < 1e-2
    assert residuals[20:].max() < 0.02
