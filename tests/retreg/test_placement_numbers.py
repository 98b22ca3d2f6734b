"""Rotation, scale and shift of a transform, against SciPy's rotations and hand calculation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from retreg.geometry import Grid
from retreg.placement_numbers import placement_numbers
from retreg.transforms import Affine, DisplacementField

PICTURE = Grid.of_picture(200, 150)
VOLUME = Grid((40, 50, 30), np.diag([2.0, 1, 3, 1]))


def a_map(linear, shift=(0, 0, 0)):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, shift
    return Affine(matrix)


def as_curved(affine, grid):
    """The same map as a field, which does not say that it is affine."""
    return DisplacementField.sampled(affine, grid)


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (30, 1.2), (-170, 0.5), (90, 1)])
def test_a_picture_is_turned_within_its_plane(degrees, scale, curved):
    turn = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    affine = a_map(np.diag([scale, scale, 1]) @ turn, (7, -3, 0))
    found = placement_numbers(as_curved(affine, PICTURE) if curved else affine, PICTURE)
    assert found.rotation_deg == pytest.approx(degrees, abs=1e-6)
    assert found.scale == pytest.approx(scale)
    np.testing.assert_allclose(found.shift, affine(PICTURE.centre[None])[0] - PICTURE.centre)
    assert (found.is_exact, found.is_mirrored, found.rotation_axis) == (not curved, False, None)
    np.testing.assert_allclose(
        found.matrix[:, [0, 1, 3]], affine.moving_from_fixed[:, [0, 1, 3]], atol=1e-6
    )
    assert abs(np.linalg.det(found.matrix)) > 0.1


@pytest.mark.parametrize("curved", [False, True])
def test_a_mirrored_picture_is_told(curved):
    affine = a_map(np.diag([-1.0, 1, 1]))
    found = placement_numbers(as_curved(affine, PICTURE) if curved else affine, PICTURE)
    assert found.is_mirrored
    assert abs(found.rotation_deg) == pytest.approx(180)


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize("vector", [(0, 0, 0), (0.4, 0.2, -0.1), (2, -1, 1.5), (np.pi, 0, 0)])
def test_a_volume_is_turned_about_an_axis(vector, curved):
    rotation = Rotation.from_rotvec(vector)
    affine = a_map(1.1 * rotation.as_matrix(), (1, 2, 3))
    found = placement_numbers(as_curved(affine, VOLUME) if curved else affine, VOLUME)
    assert found.rotation_deg == pytest.approx(np.degrees(np.linalg.norm(vector)), abs=1e-5)
    if np.linalg.norm(vector) > 0:
        size = np.linalg.norm(vector)
        assert abs(found.rotation_axis @ vector) / size == pytest.approx(1, abs=1e-6)
        back = Rotation.from_rotvec(np.radians(found.rotation_deg) * found.rotation_axis)
        np.testing.assert_allclose(back.as_matrix(), rotation.as_matrix(), atol=1e-6)
    assert found.scale == pytest.approx(1.1)
    assert not found.is_mirrored


def test_a_mirrored_volume_is_told():
    assert placement_numbers(a_map(np.diag([-1.0, 1, 1])), VOLUME).is_mirrored


def test_a_picture_that_is_placed_elsewhere_in_space_has_an_axis():
    turn = Rotation.from_euler("x", 90, degrees=True)
    found = placement_numbers(a_map(turn.as_matrix()), PICTURE)
    assert found.rotation_deg == pytest.approx(90)
    np.testing.assert_allclose(found.rotation_axis, [1, 0, 0], atol=1e-9)
