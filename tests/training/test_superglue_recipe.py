"""The recipe of superglue-fundus: true partners, what is asked for, and that a few steps help."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from retreg.errors import FileError
from retreg_server.registration.networks.superglue_arrays import SuperGlueArrays
from retreg_server.registration.networks.superglue_net import Points, log_assignment
from retreg_server.registration.networks.weights import load_arrays, load_metadata
from retreg_server.training.export import export_bundle
from retreg_server.training.eyes import CANVAS
from retreg_server.training.glue_pairs import (
    ALONE,
    FIELD,
    UNSURE,
    GluePair,
    glue_pair,
    kept_pair,
)
from retreg_server.training.layered_eyes import LayeredEye
from retreg_server.training.loop import Plan, train
from retreg_server.training.matching_views import matching_pair
from retreg_server.training.recipe import TrainingOrder, recipe_of
from retreg_server.training.superglue_fundus import (
    SuperGlueTask,
    assignment_loss,
    scores,
    superglue_bundle,
    superglue_task,
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def constellation(seed, common=24, alone=10, eye=0):
    """Two views of points, one turned; descriptors hardly tell them, where they lie does."""
    generator = rng(seed)
    count = common + alone
    places = 1.6 * torch.rand(count, 2, generator=generator) - 0.8
    angle = 0.7 * float(torch.rand((), generator=generator))
    turn = torch.tensor([
        [math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]
    ])  # fmt: skip
    other = torch.cat([places[:common] @ turn.T, 1.6 * torch.rand(alone, 2) - 0.8])
    described = torch.randn(count, 64, generator=generator)
    noisy = torch.cat([described[:common], torch.randn(alone, 64, generator=generator)])
    noisy = noisy + 4.0 * torch.randn(count, 64, generator=generator)
    order = torch.randperm(count, generator=generator)
    back = torch.argsort(order)
    strength = torch.linspace(1, 0, count)[:, None]
    first = Points(functional.normalize(described, dim=1), torch.cat([places, strength], dim=1))
    second = Points(
        functional.normalize(noisy[order], dim=1), torch.cat([other[order], strength], dim=1)
    )
    rows = torch.arange(count)
    partners = torch.where(rows < common, back, ALONE), torch.where(order < common, order, ALONE)
    return GluePair((first, second), partners, eye)


@pytest.fixture(scope="module")
def eye():
    """An eye of two layers with lines that cross."""
    canvas = np.zeros((2, 2, CANVAS, CANVAS), np.float32)
    canvas[:, 1] = 1
    x, y = np.meshgrid(np.arange(CANVAS), np.arange(CANVAS))
    generator = np.random.default_rng(2)
    for angle, offset in generator.uniform((0, -200), (3, 200), (40, 2)):
        far = (x - 256) * np.cos(angle) + (y - 256) * np.sin(angle) - offset
        canvas[:, 0] = np.maximum(canvas[:, 0], np.exp(-(far**2) / 8).astype(np.float32))
    return LayeredEye(torch.from_numpy(canvas), torch.zeros(1, 2), True)


@pytest.mark.parametrize("seed", [0, 1, 4])
def test_partners_lie_where_the_warps_say(eye, seed):
    views = matching_pair(eye, 192, 50.0, rng(seed))
    pair = glue_pair(views, 3)
    first, second = pair.partners
    both = torch.nonzero(first >= 0)[:, 0]
    assert len(both) > 10
    assert torch.equal(second[first[both]], both)
    places = [each.told[:, :2] for each in pair.points]
    there = views.views[1].warp.image_of(views.views[0].warp.anatomy_of(places[0][both]))
    assert (there - places[1][first[both]]).norm(dim=1).max() * FIELD / 2 < 12
    assert (first == ALONE).any()
    assert set(first[first < 0].tolist()) <= {ALONE, UNSURE}


def test_a_pair_is_made_once_and_the_same_from_its_file(tmp_path):
    made = []

    def make(index):
        made.append(index)
        return constellation(index, eye=7)

    before, again = (kept_pair(tmp_path, 5, make) for _ in range(2))
    assert made == [5]
    assert again.eye == 7
    for first, second in zip(before.points, again.points, strict=True):
        assert torch.equal(first.descriptors, second.descriptors)
        assert torch.equal(first.told, second.told)
    assert torch.equal(before.partners[0], constellation(5).partners[0])


def test_points_that_are_left_out_leave_their_partners_alone():
    pair = constellation(1)
    less = pair.strongest((30, 12))
    assert [len(each.told) for each in less.points] == [30, 12]
    kept = less.partners[0] >= 0
    assert torch.equal(less.partners[0][kept], pair.partners[0][:30][kept])
    assert less.partners[0].max() < 12
    lost = pair.partners[0][:30] >= 12
    assert lost.any()
    assert (less.partners[0][lost] == ALONE).all()


def test_moved_views_keep_their_partners_and_their_shape():
    pair = constellation(1)
    moved = pair.moved(rng(3))
    assert moved.partners == pair.partners
    for before, after in zip(pair.points, moved.points, strict=True):
        assert torch.equal(before.descriptors, after.descriptors)
        assert torch.equal(before.told[:, 2], after.told[:, 2])
        assert (before.told[:, :2] - after.told[:, :2]).norm(dim=1).mean() > 0.01
        ratio = torch.pdist(after.told[:, :2]) / torch.pdist(before.told[:, :2])
        assert ratio.std() < 1e-3
        assert 0.85 < float(ratio.mean()) < 1.17


def test_nobody_has_a_partner_in_another_eye():
    pair = constellation(1).against(constellation(2, common=5, alone=3))
    assert [len(each) for each in pair.partners] == [34, 8]
    assert all((each == ALONE).all() for each in pair.partners)


@pytest.mark.parametrize(("right", "expected"), [(24, 1.0), (12, 0.5), (0, 0.0)])
def test_scores_count_right_matches(right, expected):
    pair = constellation(3, alone=0)
    shares = np.zeros((24, 24))
    shares[np.arange(24), pair.partners[0].numpy()] = 0.9
    shares[right:] = np.roll(shares[right:], 1, axis=0)
    found = scores(pair, shares, shares)
    assert found == pytest.approx((expected, expected, expected))


def test_matches_of_small_share_and_unsure_points_do_not_count():
    pair = constellation(3, alone=2)
    first, second = (each.clone() for each in pair.partners)
    shares = np.zeros((26, 26))
    shares[np.arange(24), first.numpy()[:24]] = 0.9
    shares[:6] *= 0.1
    first[8] = UNSURE
    found = scores(GluePair(pair.points, (first, second), 0), shares, shares)
    assert found[1] == pytest.approx(17 / 23)
    assert found[2] == 1


def test_the_loss_of_a_fresh_network_falls_with_the_noise():
    net = SuperGlueTask(constellation, 1, []).architecture.build()
    pair = constellation(0)
    clean = GluePair((pair.points[0], pair.points[0]), (torch.arange(34),) * 2, 0)
    losses = [
        float(assignment_loss(log_assignment(*net(*each.points)), each).detach())
        for each in (clean, pair)
    ]
    assert losses[0] < 0.1
    assert losses[1] > 0.5


def test_training_makes_it_better_than_nearest_neighbours(tmp_path):
    """The same few pairs again and again: where points lie to each other can be learned."""
    seen = [constellation(seed, eye=seed) for seed in range(2)]
    task = SuperGlueTask(seen.__getitem__, 2, seen)
    plan = Plan(tmp_path / "run", steps=50, batch=1, rate=2e-3, minutes_between_checks=60)
    run = train(task, plan)
    found = task.validation(run.net)
    assert found["f1"] > found["nearest_f1"] + 15
    assert found["f1"] == pytest.approx(100 - found["error"])
    bundle = superglue_bundle(TrainingOrder(None, tmp_path, 128, 0, "cpu"), {"seed": 0}, "x")
    export_bundle(plan.folder, tmp_path, bundle)
    card = load_metadata("superglue-fundus", tmp_path).card
    assert card["retreg"]["measured"]["f1"] == pytest.approx(
        100 - card["retreg"]["measured"]["error"], abs=1e-3
    )
    shipped = SuperGlueArrays(load_arrays("superglue-fundus", tmp_path), 4)
    told = [tuple(each.numpy() for each in found) for found in seen[0].points]
    expected = run.average(*seen[0].points)[0].detach().numpy()
    largest = float(np.abs(expected).max())
    assert shipped.scores(*told) == pytest.approx(expected, abs=0.02 * largest)


def test_a_folder_without_masks_is_refused(tmp_path):
    assert recipe_of("superglue-fundus").task is superglue_task
    order = TrainingOrder(tmp_path, tmp_path / "out", 128, 0, "cpu")
    with pytest.raises(FileError, match="no vessel masks"):
        superglue_task(order)
