"""Made-up views of retinas and the fundus recipe."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from retreg.errors import FileError
from retreg_server.registration.networks.keypoint_net import Architecture
from retreg_server.training.eyes import (
    CANVAS,
    Retina,
    clutter_textures,
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


@pytest.fixture
def rng_array():
    return np.random.default_rng(0).normal(size=(192, 200))


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
        wide = torch.nn.functional.avg_pool2d(view.image, 7, 1, 3)[0, 0]  # without thin lines
        bright = (wide > 0.8 * wide.max()).float()
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


def test_a_photograph_and_its_mask_share_a_canvas_and_give_clutter(tmp_path, rng_array):
    vessels = np.zeros((192, 200), np.uint8)
    cv2.line(vessels, (20, 96), (180, 96), 255, 2)
    y, x = np.mgrid[:192, :200]
    shown = (x - 99.5) ** 2 + (y - 95.5) ** 2 < 92**2
    grey = np.clip(140 + 9 * cv2.GaussianBlur(rng_array, (0, 0), 2) / 0.14 - 0.4 * vessels, 9, 250)
    cv2.imwrite(str(tmp_path / "CHASE_01L.jpg"), (grey * shown).astype(np.uint8))
    cv2.imwrite(str(tmp_path / "CHASE_01L_1stHO_vessels.png"), vessels)
    mask, photo = real_retinas(tmp_path)
    assert torch.allclose(mask.disc, photo.disc)
    assert torch.allclose(photo.disc, torch.tensor([2 * 0.52 - 1, (2 * 0.475 - 1) * 0.96]))
    on, off = (photo.canvas[0, 0][row, 150:360] for row in (256, 226))
    assert on.mean() > 1.5 * off.mean()
    (texture,) = clutter_textures([mask, photo])
    middle = texture.shape[-1] // 2
    assert texture[..., middle, :].mean() < 0.7 * on.mean()  # the vessel is gone
    assert texture.mean() > 0.05


def test_views_of_one_draw_are_alike_and_clutter_adds_to_them(eyes):
    texture = torch.rand(1, 1, 64, 64, generator=rng(5))
    plain, again = (retina_view(eyes[0], 96, 60.0, rng(3)) for _ in "ab")
    assert torch.equal(plain.image, again.image)
    added = [
        (retina_view(eyes[0], 96, 60.0, rng(seed), [texture]).image > 0.3).float().mean()
        - (retina_view(eyes[0], 96, 60.0, rng(seed)).image > 0.3).float().mean()
        for seed in range(12)
    ]
    assert np.mean(added) > 0.01


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
