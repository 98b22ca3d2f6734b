"""Painted heads on made-up label maps, and keypoints that correspond between them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from retreg.errors import FileError
from retreg_server.registration.networks.keypoint_net import Architecture
from retreg_server.training import keymorph_brain
from retreg_server.training.brain_contrast import painted
from retreg_server.training.brain_samples import VOXELS, brain_sample
from retreg_server.training.correspondence import (
    Anatomy,
    corresponding,
    load_anatomies,
    save_anatomies,
    spread_points,
)
from retreg_server.training.intensities import chance
from retreg_server.training.keymorph_brain import BrainTask
from retreg_server.training.label_maps import (
    HALF_SIDE_MM,
    LabelMap,
    read_label_map,
    read_label_maps,
)
from retreg_server.training.loop import Plan, advance, start, train
from retreg_server.training.warps import WarpRanges

PARTS = {2: (40, 0, 0), 41: (-40, 0, 0), 16: (0, 10, -45), 10: (12, 0, 0), 49: (-12, 0, 0),
         4: (15, 10, 20), 43: (-15, 10, 20), 8: (25, 40, -35), 47: (-25, 40, -35)}
RADII = {2: 38, 41: 38, 16: 16, 10: 11, 49: 11, 4: 9, 43: 9, 8: 20, 47: 20}


def head(scale=1.0, shift=(0.0, 0.0, 0.0), size=128):
    """A head of balls: parts of a brain in a ball of skull and one of skin."""
    axis = ((np.arange(size) + 0.5) / size * 2 - 1) * HALF_SIDE_MM
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    points = np.stack([x, y, z], axis=-1) - shift
    labels = np.zeros((size,) * 3, np.int16)
    labels[np.linalg.norm(points, axis=-1) < 95 * scale] = 511
    labels[np.linalg.norm(points, axis=-1) < 88 * scale] = 24
    for label, centre in PARTS.items():
        near = np.linalg.norm(points - scale * np.array(centre), axis=-1)
        labels[near < scale * RADII[label]] = label
    return labels


@pytest.fixture(scope="module")
def first():
    return LabelMap("first", torch.from_numpy(head()))


@pytest.fixture(scope="module")
def second():
    return LabelMap("second", torch.from_numpy(head(1.12, (4.0, -6.0, 3.0))))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_label_map_is_read_in_lps_around_its_brain(tmp_path):
    labels = head(shift=(10.0, -8.0, 6.0))
    image = sitk.GetImageFromArray(labels[:, ::-1, ::-1].copy())
    image.SetSpacing((2.0, 2.0, 2.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    image.SetOrigin((50.0, 70.0, -30.0))
    sitk.WriteImage(image, str(tmp_path / "one.nii.gz"))
    found = read_label_maps(tmp_path)[0]
    assert found.name == "one"
    for label in PARTS:
        assert abs((found.labels == label).sum() / (labels == label).sum() - 1) < 0.05
    centres = {label: np.argwhere(found.labels.numpy() == label).mean(axis=0)[::-1]
               for label in PARTS}
    assert centres[2][0] > centres[41][0] + 30  # left is at larger x
    assert centres[8][1] > centres[4][1] + 10  # back is at larger y
    assert centres[4][2] > centres[16][2] + 20  # up is at larger z


def test_folders_without_label_maps_are_refused(tmp_path):
    with pytest.raises(FileError, match="holds no label maps"):
        read_label_maps(tmp_path)
    sitk.WriteImage(sitk.Image(8, 8, 8, sitk.sitkInt16), str(tmp_path / "empty.nii.gz"))
    with pytest.raises(FileError, match="holds no head label map"):
        read_label_map(tmp_path / "empty.nii.gz")


def test_a_mirrored_head_has_left_on_the_left(second):
    mirrored = second.mirrored().labels
    for label, opposite in ((2, 41), (41, 2), (8, 47), (16, 16)):
        there = (mirrored == label).nonzero()[:, 2].float().mean()
        here = (second.labels == opposite).nonzero()[:, 2].float().mean()
        assert abs(127 - here - there) < 1e-3


def test_keypoints_follow_the_anatomy_into_another_head(first, second):
    carried = corresponding([first, second], 24, seed=0)[1].points
    expected = corresponding([first], 24, seed=0)[0].points * 1.12 + torch.tensor(
        [4.0, -6.0, 3.0]) / HALF_SIDE_MM
    assert HALF_SIDE_MM * (carried - expected).norm(dim=1).median() < 2.5
    assert HALF_SIDE_MM * (carried - expected).norm(dim=1).max() < 8.0


def test_spread_points_lie_in_the_brain_far_apart(first):
    points = spread_points(first, 32)
    assert points.shape == (32, 3)
    labels = first.look_up(points)
    assert ((labels > 0) & (labels < 500) & (labels != 24)).all()
    gaps = torch.cdist(points, points) + 9 * torch.eye(32)
    assert HALF_SIDE_MM * gaps.min() > 8


def test_heads_survive_their_file(first, second, tmp_path):
    kept = [Anatomy(first, spread_points(first, 16)), Anatomy(second, spread_points(second, 16))]
    save_anatomies(tmp_path / "a.npz", kept)
    for before, after in zip(kept, load_anatomies(tmp_path / "a.npz"), strict=True):
        assert before.head.name == after.head.name
        assert torch.equal(before.head.labels, after.head.labels)
        assert torch.equal(before.points, after.points)


def test_the_keypoints_of_a_sample_show_the_tissue_that_they_mark(first):
    middles = torch.tensor(list(PARTS.values())) / HALF_SIDE_MM
    anatomy = Anatomy(first, middles.float())
    for seed in range(5):
        sample = brain_sample(anatomy, WarpRanges(180.0), rng(seed))
        inside = (sample.points.abs() < 0.98).all(dim=1)
        index = ((sample.points[inside] + 1) * VOXELS / 2).floor().long()
        seen = sample.labels[index[:, 2], index[:, 1], index[:, 0]]
        marked = first.look_up(anatomy.points[inside])
        assert len(seen) > 3
        assert torch.equal(seen, marked)


def test_paintings_differ_in_contrast_but_not_for_one_seed(first):
    labels = first.labels[::2, ::2, ::2].long()
    images = [painted(labels, rng(seed)) for seed in (0, 0, *range(1, 12))]
    assert torch.equal(images[0], images[1])
    for image in images:
        assert image.shape == (1, 1, 64, 64, 64)
        assert image.min() >= 0
        assert image.max() <= 1
        assert image.std() > 0.01
    white, stem = (torch.stack([i[0, 0][labels == label].mean() for i in images])
                   for label in (2, 16))
    assert (white > stem).any()
    assert (white < stem).any()


@pytest.fixture(scope="module")
def four_people(first, second):
    """Two heads that are trained on, and two that are kept back."""
    points = spread_points(first, 16)
    return [Anatomy(LabelMap(name, each.labels), points)
            for name, each in zip("abcd", (first, second, first, second), strict=True)]


def a_task(people, objective, kind=BrainTask):
    return kind(people, Architecture("light", 3, 16, width=4), [], objective=objective)


class OneSample(BrainTask):
    """The same draw in every step, halfway through the training."""

    seed = 0

    def loss(self, net, batch, progress, generator):
        del progress, generator
        return super().loss(net, batch, 0.5, rng(self.seed))


def draw_of(kind):
    """A seed for which the unsupervised objective compares two contrasts, or two people."""
    wanted = kind == "contrasts"
    return next(seed for seed in range(1, 50) if chance(0.5, rng(seed)) == wanted)


@pytest.mark.parametrize(
    ("objective", "kind"),
    [("keypoints", ""), ("unsupervised", "contrasts"), ("unsupervised", "people"),
     ("supervised", "")],
)
def test_every_objective_falls_on_a_small_example(four_people, objective, kind, tmp_path):
    task = a_task(four_people, objective, OneSample)
    task.seed = draw_of(kind)
    plan = Plan(tmp_path, steps=40, batch=1, rate=5e-3)
    run = start(task, plan)
    losses = [advance(task, plan, run) for _ in range(10)]
    fall = losses[0] - np.mean(losses[-2:])
    assert fall > 0.15 * abs(losses[0])


@pytest.mark.parametrize("objective", ["unsupervised", "supervised"])
def test_an_interrupted_tuning_ends_exactly_like_an_uninterrupted_one(
    four_people, objective, tmp_path, monkeypatch
):
    monkeypatch.setattr(keymorph_brain, "VALIDATION_PAIRS", 1)
    plan = Plan(tmp_path / "whole", steps=5, batch=1, seed=3)
    whole = train(a_task(four_people, objective), plan)

    class Stopped(BrainTask):
        def loss(self, net, batch, progress, generator):
            if progress >= 2 / 5:
                raise KeyboardInterrupt
            return super().loss(net, batch, progress, generator)

    parts = replace(plan, folder=tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        train(a_task(four_people, objective, Stopped), parts)
    continued = train(a_task(four_people, objective), parts)
    assert continued.step == 5
    for net in ("net", "average"):
        pairs = zip(getattr(whole, net).parameters(), getattr(continued, net).parameters(),
                    strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_the_validation_of_keypoints_is_in_millimetres(four_people, monkeypatch):
    monkeypatch.setattr(keymorph_brain, "VALIDATION_PAIRS", 2)
    task = a_task(four_people, "keypoints")
    with torch.no_grad():
        numbers = task.validation(task.architecture.build())
    assert set(numbers) == {"error", "affine", "affine_worst"}
    assert 0 < numbers["error"] < 250
