"""What a network answers becomes a transform of the world, in the right place and direction."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from retreg.geometry import Grid, apply_matrix
from retreg.image import Image
from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration.fundus.network_field import SHRINK, vessel_field
from retreg_server.registration.fundus.pixel_maps import QuadraticMap
from retreg_server.registration.fundus.vessel_pyramid import pyramid
from retreg_server.registration.volume.network_field import volume_field
from retreg_server.registration.volume.volume_pair import PreparedVolume

CPU = torch.device("cpu")
VOXELS, SPACING_MM = 32, 6.0


class Shifting(torch.nn.Module):
    """Answers with one displacement everywhere, in pixels of its input; remembers what it saw."""

    def __init__(self, *shift: float) -> None:
        super().__init__()
        self.architecture = SimpleNamespace(multiple=16)
        self.shift = torch.tensor(shift)
        self.seen: list[torch.Tensor] = []

    def forward(self, fixed, moving):
        self.seen = [fixed, moving]
        shape = [n // 2 for n in fixed.shape[2:]]
        field = self.shift.reshape(1, -1, *(1,) * len(shape)).expand(1, -1, *shape)
        return (torch.cat([field, -field])[: len(fixed)],)  # the second pair is upside down


@pytest.fixture(scope="module")
def head() -> Image:
    return make_head_pair(3, spacing_mm=4.0, rotation_deg=0).fixed


def placed(image: Image, world: np.ndarray) -> Image:
    return Image(image.array, Grid(image.grid.size, world @ image.grid.world_from_index))


def test_a_displacement_in_voxels_is_millimetres_along_the_axes_of_the_fixed_head(head):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec([0.1, 0.3, -0.2]).as_matrix()
    turn[:3, 3] = [30, -20, 10]
    fixed = PreparedVolume.of(placed(head, turn), "fixed")
    field = volume_field(
        Shifting(1.0, -0.5, 2.0), fixed, PreparedVolume.of(head, "moving"), np.linalg.inv(turn),
        (VOXELS, SPACING_MM), CPU,
    )  # fmt: skip
    points = apply_matrix(turn, np.array([[0, 0, 0], [20, 10, -30]], dtype=float))
    expected = points + turn[:3, :3] @ (SPACING_MM * np.array([1.0, -0.5, 2.0]))
    np.testing.assert_allclose(field(points), expected, atol=1e-4)


def test_the_network_is_shown_the_moving_head_through_the_global_transform(head):
    shift = np.eye(4)
    shift[:3, 3] = [25, -15, 8]
    net = Shifting(0, 0, 0)
    prepared = PreparedVolume.of(head, "fixed"), PreparedVolume.of(placed(head, shift), "moving")
    volume_field(net, *prepared, shift, (VOXELS, SPACING_MM), CPU)
    fixed, moving = net.seen
    assert fixed.shape == (1, 1, VOXELS, VOXELS, VOXELS)
    assert (fixed - moving).abs().mean() < 0.01
    assert fixed.max() > 0.9
    volume_field(net, *prepared, np.eye(4), (VOXELS, SPACING_MM), CPU)
    assert (net.seen[0] - net.seen[1]).abs().mean() > 0.05


def test_a_field_that_folds_is_mended(head):
    class Folding(Shifting):
        def forward(self, fixed, moving):
            (field,) = super().forward(fixed, moving)
            ramp = torch.linspace(20, -20, field.shape[-1])
            return (field + torch.stack([ramp, 0 * ramp, 0 * ramp])[None, :, None, None, :],)

    view = PreparedVolume.of(head, "fixed")
    field = volume_field(Folding(0, 0, 0), view, view, np.eye(4), (VOXELS, SPACING_MM), CPU)
    steps = field.vectors_mm[0, 0, 0] + field.grid.lattice()[: field.grid.size[0], 0]
    assert (np.diff(steps) > 0).all()


def lines(shift_x: float):
    """A map with two bright lines, as the levels of a pyramid."""
    x = np.arange(240)[None, :] - shift_x + np.zeros((200, 1))
    y = np.arange(200)[:, None] + np.zeros((1, 240))
    bright = np.exp(-((x - 90) ** 2) / 8) + np.exp(-((y - 120 + 0.2 * x) ** 2) / 8)
    return pyramid(bright.astype(np.float32), np.ones((200, 240), bool), (1,))[-1]


def test_the_field_of_a_network_for_pictures_is_in_their_pixels():
    still = QuadraticMap.from_affine(np.eye(3), np.array([119.5, 99.5]), 120.0)
    net = Shifting(1.5, -2.0)
    field = vessel_field(net, lines(0), lines(0), still, CPU)
    assert field.factor == SHRINK
    assert field.vectors.shape == (50, 60, 2)
    np.testing.assert_allclose(field.vectors, np.broadcast_to([3.0, -4.0], (50, 60, 2)))
    assert net.seen[0].shape == (2, 1, 112, 128)  # halved, and filled up to multiples of 16
    torch.testing.assert_close(*net.seen)
    torch.testing.assert_close(net.seen[0][1], net.seen[0][0].flip(1, 2))


def test_the_moving_picture_is_shown_in_the_frame_of_the_fixed_one():
    move = np.eye(3)
    move[0, 2] = 12.0
    mapped = QuadraticMap.from_affine(move, np.array([119.5, 99.5]), 120.0)
    net = Shifting(0, 0)
    vessel_field(net, lines(0), lines(12), mapped, CPU)
    fixed, moving = (image[0, 0, 20:80, 20:100] for image in net.seen)
    assert (fixed - moving).abs().mean() < 0.02
    still = QuadraticMap.from_affine(np.eye(3), np.array([119.5, 99.5]), 120.0)
    vessel_field(net, lines(0), lines(12), still, CPU)
    assert (net.seen[0] - net.seen[1]).abs().mean() > 0.05
