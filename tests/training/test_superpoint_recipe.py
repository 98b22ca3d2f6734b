"""The recipe of superpoint-fundus: true correspondences, labels, and that a few steps help."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retreg.errors import FileError
from retreg_server.registration.networks.superpoint_arrays import SuperPointArrays
from retreg_server.registration.networks.weights import load_arrays, load_metadata
from retreg_server.training.export import export_bundle
from retreg_server.training.eyes import CANVAS, Retina
from retreg_server.training.layered_eyes import LayeredEye, made_up_eyes, real_eyes
from retreg_server.training.loop import Plan, train
from retreg_server.training.matching_views import matching_pair
from retreg_server.training.recipe import TrainingOrder, recipe_of
from retreg_server.training.superpoint_fundus import (
    PIXELS,
    SuperPointTask,
    cell_labels,
    description_loss,
    superpoint_bundle,
    superpoint_task,
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def dotted_eye(places):
    """An eye of two layers that show dots at places, which are its corners."""
    canvas = np.zeros((2, 2, CANVAS, CANVAS), np.float32)
    canvas[:, 1] = 1
    axis = (2 * np.arange(CANVAS) + 1) / CANVAS - 1
    for x, y in places:
        far = (axis[None] - x) ** 2 + (axis[:, None] - y) ** 2
        canvas[:, 0] = np.maximum(canvas[:, 0], np.exp(-far / 0.02**2))
    return LayeredEye(torch.from_numpy(canvas), torch.tensor(places), True)


@pytest.fixture(scope="module")
def eye():
    generator = np.random.default_rng(4)
    return dotted_eye([tuple(map(float, place)) for place in generator.uniform(-0.6, 0.6, (40, 2))])


def test_corners_are_seen_where_the_pair_says(eye):
    brighter = []
    for seed in range(12):
        pair = matching_pair(eye, 128, 180.0, rng(seed))
        for view, points, seen in zip(pair.views, pair.points, pair.seen, strict=True):
            there = torch.nn.functional.grid_sample(
                view.image, points[seen][None, :, None], align_corners=False
            )
            brighter.append(float(there.mean() - view.image[view.shown].mean()))
    assert np.median(brighter) > 0.15
    assert np.mean(np.array(brighter) > 0) > 0.9


@pytest.mark.parametrize("angle", [0.0, 40.0])
def test_views_are_turned_against_each_other_by_no_more_than_asked(eye, angle):
    for seed in range(10):
        pair = matching_pair(eye, 64, angle, rng(seed))
        first, second = (view.warp.linear[:, :2] for view in pair.views)
        turn = first @ torch.linalg.inv(second)
        found = torch.rad2deg(torch.atan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1])).abs()
        assert found <= angle + 4  # shear turns a little


def test_labels_name_the_pixel_of_the_stronger_point_of_a_cell():
    def at(x, y):
        return [(2 * x + 1) / PIXELS - 1, (2 * y + 1) / PIXELS - 1]

    points = torch.tensor([at(3, 2), at(5, 5), at(20, 9), at(100, 100)])
    labels = cell_labels(points, torch.tensor([True, True, True, False]))
    assert labels[0, 0] == 2 * 8 + 3
    assert labels[1, 2] == 1 * 8 + 4
    assert (labels == 64).sum() == labels.numel() - 2


def test_descriptors_that_tell_points_apart_cost_less(eye):
    pairs = [matching_pair(eye, PIXELS, 30.0, rng(2))]
    axis = torch.arange(PIXELS // 8)
    places = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))[None].float()
    alike = torch.ones(2, 8, PIXELS // 8, PIXELS // 8)
    sharpness = torch.tensor(2.5)
    assert pairs[0].seen.all(dim=0).sum() > 5
    # The same descriptor everywhere is a guess among all points that are shown.
    guess = description_loss(alike, pairs, sharpness, rng())
    counts = [float(torch.log(seen.sum().float())) for seen in pairs[0].seen]
    assert float(guess) == pytest.approx(sum(counts) / 2, rel=1e-3)
    assert torch.isfinite(description_loss(places.repeat(2, 4, 1, 1), pairs, sharpness, rng()))


def test_a_few_steps_bring_the_loss_down(eye, tmp_path):
    task = SuperPointTask([eye], [eye])
    plan = Plan(tmp_path / "run", steps=12, batch=1, rate=4e-3, minutes_between_checks=60)
    first = float(task.loss(task.architecture.build(), 1, 0.0, rng(1)).detach())
    run = train(task, plan)
    assert float(task.loss(run.net, 1, 0.0, rng(1)).detach()) < 0.8 * first
    bundle = superpoint_bundle(TrainingOrder(None, tmp_path, 128, 0, "cpu"), {"seed": 0}, "x")
    export_bundle(plan.folder, tmp_path, bundle)
    shipped = SuperPointArrays(load_arrays("superpoint-fundus", tmp_path))
    picture = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    kept = run.average.eval()(torch.from_numpy(picture)[None, None])[1][0].detach().numpy()
    assert shipped.descriptors(picture) == pytest.approx(kept, abs=0.02 * float(np.abs(kept).max()))
    card = load_metadata("superpoint-fundus", tmp_path).card
    assert card["network_data_format"]["outputs"]["descriptors"]["num_channels"] == 64
    assert set(task.validation(run.average)) == {
        "error", "repeatability", "precision", "nearest_right"
    }  # fmt: skip


def test_the_statistics_of_batch_norm_are_kept_with_the_averaged_weights(eye, tmp_path):
    plan = Plan(tmp_path / "run", steps=2, batch=1, minutes_between_checks=60)
    run = train(SuperPointTask([eye], [eye]), plan)
    pairs = list(zip(run.net.buffers(), run.average.buffers(), strict=True))
    assert pairs
    assert all(torch.equal(first, second) for first, second in pairs)


def test_a_mask_and_its_photograph_are_layers_of_one_eye():
    def retina(name):
        canvas = torch.zeros(1, 2, CANVAS, CANVAS)
        canvas[:, 1] = 1
        canvas[:, 0, 100:400, 250:256] = canvas[:, 0, 250:256, 100:400] = 1
        return Retina(name, canvas)

    names = ("CHASE_01L_1stHO", "HRF_01_h", "CHASE_01L")
    found = real_eyes([retina(name) for name in names])
    assert [len(each.layers) for each in found] == [2, 1]
    assert all(len(each.corners) for each in found)


def test_made_up_eyes_are_kept_and_the_same_from_the_file(tmp_path):
    made = made_up_eyes(tmp_path / "eyes.npz", 5, 1)
    before = (tmp_path / "eyes.npz").stat().st_mtime_ns
    again = made_up_eyes(tmp_path / "eyes.npz", 5, 1)
    assert (tmp_path / "eyes.npz").stat().st_mtime_ns == before
    assert torch.equal(made[0].layers, again[0].layers)
    assert made[0].layers.shape == (2, 2, CANVAS, CANVAS)
    assert len(made[0].corners) > 100


def test_a_folder_without_masks_is_refused(tmp_path):
    assert recipe_of("superpoint-fundus").task is superpoint_task
    order = TrainingOrder(tmp_path, tmp_path / "out", 128, 0, "cpu")
    with pytest.raises(FileError, match="no vessel masks"):
        superpoint_task(order)
