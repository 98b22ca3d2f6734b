"""Made-up views of retinas and the fundus recipe."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from retreg.errors import FileError
from retreg_server.registration.nets.keypoint_net import Architecture
from retreg_server.training.eyes import (
    CANVAS,
    Retina,
    lattice,
    phantom_retina,
    phantom_retinas,
    real_retinas,
)
from retreg_server.training.fundus_views import retina_view
from retreg_server.training.keymorph_fundus import FundusTask
from retreg_server.training.loop import Plan, advance, start


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def eyes():
    return [phantom_retina(seed) for seed in (0, 1)]


def spot_retina(place):
    """A retina whose only vessel is a dot."""
    canvas = np.zeros((2, CANVAS, CANVAS), np.float32)
    canvas[1] = 1
    centre = ((np.array(place) + 1) * CANVAS / 2 - 0.5) * 16
    x, y = (round(float(c)) for c in centre)
    cv2.circle(canvas[0], (x, y), 20 * 16, 1.0, -1, cv2.LINE_AA, 4)
    return Retina("spot", torch.from_numpy(canvas)[None], None, None)


def test_a_view_shows_things_where_its_warp_says():
    place = torch.tensor([[0.1, -0.2]])
    retina = spot_retina(place[0].tolist())
    axis = (2 * torch.arange(96) + 1) / 96 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    errors = []
    for seed in range(24):
        view = retina_view(retina, 96, 180.0, rng(seed))
        expected = view.warp.image_of(place)
        if expected.abs().max() > 0.5 or not view.visible(expected):
            continue
        bright = (view.image[0, 0] > 0.6).float()
        found = torch.stack([(x * bright).sum(), (y * bright).sum()]) / bright.sum()
        errors.append(float((found - expected[0]).norm()))
    assert len(errors) >= 5
    assert np.median(errors) < 0.03  # fading and clutter disturb a few


def test_left_and_right_eyes_have_the_fovea_on_opposite_sides(eyes):
    right, left = eyes
    assert (right.fovea - right.disc)[0] * (left.fovea - left.disc)[0] < 0
    for eye in eyes:
        x, y = ((eye.disc + 1) * CANVAS / 2).long().tolist()
        near = eye.canvas[0, 0, y - 25 : y + 25, x - 25 : x + 25]
        assert near.mean() > 1.2 * eye.canvas[0, 0][eye.canvas[0, 1] > 0].mean()


def test_keypoints_are_the_lattice_in_the_frame_of_disc_and_fovea(eyes):
    frame = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    for eye in eyes:
        assert torch.allclose(eye.keypoints(frame), torch.stack([eye.disc, eye.fovea]), atol=1e-6)
    points = lattice(64)
    assert points.shape == (64, 2)
    assert (torch.cdist(points, points) + 9 * torch.eye(64)).min() > 0.2


def test_made_up_eyes_survive_their_file(tmp_path):
    made = phantom_retinas(tmp_path / "eyes.npz", 4, 1)[0]
    again = phantom_retinas(tmp_path / "eyes.npz", 4, 1)[0]
    assert torch.equal(made.canvas, again.canvas)
    assert torch.equal(made.disc, again.disc)
    assert (made.canvas - phantom_retina(4).canvas).abs().max() < 1 / 400


def test_vessel_masks_are_read_with_the_frames_that_are_known(tmp_path):
    mask = np.zeros((200, 300), np.uint8)
    cv2.line(mask, (20, 100), (280, 100), 255, 4)
    for name in ("HRF_01_dr_vessels.png", "other_vessels.png"):
        cv2.imwrite(str(tmp_path / name), mask)
    known, other = real_retinas(tmp_path)
    assert other.disc is None
    assert other.keypoints(lattice(16)) is None
    assert torch.allclose(known.disc, torch.tensor([2 * 0.22 - 1, (2 * 0.508 - 1) * 2 / 3]),
                          atol=1e-3)
    middle = known.canvas[0, 0, CANVAS // 2 - 6 : CANVAS // 2 + 6]
    assert middle.max() > 0.7
    assert known.canvas[0, 1, 10].max() == 0
    with pytest.raises(FileError, match="holds no vessel masks"):
        real_retinas(tmp_path / "none")


def test_the_recipe_can_take_a_step_and_validate(eyes, tmp_path):
    bare = Retina("real", eyes[0].canvas, None, None)
    architecture = Architecture("light", 2, 16, width=4, levels=5)
    task = FundusTask([*eyes, bare], eyes[:1], architecture, [])
    plan = Plan(tmp_path, steps=10, batch=2)
    run = start(task, plan)
    assert all(np.isfinite(advance(task, plan, run)) for _ in range(3))
    with torch.no_grad():
        numbers = task.validation(run.average)
    assert 0 < numbers["error"] < 150
    assert np.isfinite(numbers["affine"])
