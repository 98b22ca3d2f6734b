"""The training loop on a toy: it learns, and an interrupted run ends like an uninterrupted one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from retreg.errors import FileError
from retreg_server.registration.networks.centre_of_mass import pixel_centres
from retreg_server.registration.networks.keypoint_net import Architecture
from retreg_server.training.checkpoints import load_run, save_run
from retreg_server.training.loop import Plan, advance, start, train


class SpotTask:
    """All 16 keypoints are to find one bright spot in a noisy picture."""

    architecture = Architecture("light", 2, 16, width=4, levels=3)

    def batch(self, size, generator):
        places = 1.4 * torch.rand(size, 1, 2, generator=generator) - 0.7
        axis = pixel_centres(32)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        far = (x - places[..., :1]) ** 2 + (y - places[..., 1:]) ** 2
        noise = 0.05 * torch.randn(size, 32, 32, generator=generator)
        return (torch.exp(-far / 0.02) + noise)[:, None], places

    def loss(self, net, batch, progress, generator):
        assert 0 <= progress < 1
        images, places = self.batch(batch, generator)
        return (net(images).points - places).abs().mean()

    def validation(self, net):
        images, places = self.batch(8, torch.Generator().manual_seed(99))
        with torch.no_grad():
            return {"error": float((net(images).points - places).abs().mean())}


@pytest.fixture
def plan(tmp_path):
    return Plan(tmp_path / "run", steps=60, batch=4, rate=5e-3, seed=7)


def same(first, second):
    return all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_training_lowers_the_error_and_keeps_the_best_weights(plan):
    task = SpotTask()
    before = task.validation(start(task, plan).average)["error"]
    run = train(task, plan)
    assert run.step == 60
    assert run.best < 0.6 * before
    rows = [json.loads(row) for row in (plan.folder / "training.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 60
    assert rows[-1]["error"] == pytest.approx(run.best, abs=1e-4)
    assert (plan.folder / "best.safetensors").exists()


def test_an_interrupted_run_ends_exactly_like_an_uninterrupted_one(plan, monkeypatch):
    task = SpotTask()
    whole = train(task, replace(plan, folder=plan.folder / "whole"))

    stopping = SpotTask()
    losses = iter(range(1000))

    def interrupted(*arguments):
        if next(losses) == 25:
            raise KeyboardInterrupt
        return SpotTask.loss(stopping, *arguments)

    monkeypatch.setattr(stopping, "loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(stopping, plan)
    continued = train(task, plan)
    assert continued.step == whole.step == 60
    assert same(continued.net, whole.net)
    assert same(continued.average, whole.average)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(plan):
    task = SpotTask()
    runs = [start(task, p) for p in (plan, plan, replace(plan, seed=8))]
    for run, p in zip(runs, (plan, plan, replace(plan, seed=8)), strict=True):
        advance(task, p, run)
    assert same(runs[0].net, runs[1].net)
    assert not same(runs[0].net, runs[2].net)


def test_mixed_precision_trains_too(plan):
    task = SpotTask()
    mixed = replace(plan, mixed_precision=True)
    run = start(task, mixed)
    losses = [advance(task, mixed, run) for _ in range(30)]
    assert sum(losses[-5:]) < sum(losses[:5])


def test_a_checkpoint_of_another_network_is_refused(plan):
    task = SpotTask()
    plan.folder.mkdir(parents=True)
    save_run(plan.folder, start(task, plan))
    other = SpotTask()
    other.architecture = Architecture("light", 2, 32, width=4, levels=3)
    with pytest.raises(FileError, match="belongs to another network"):
        load_run(plan.folder, start(other, plan))


def test_a_run_can_start_from_weights_of_another(plan):
    first = train(SpotTask(), replace(plan, steps=3))
    weights = plan.folder / "best.safetensors"
    other = replace(plan, folder=plan.folder / "next", weights=weights, seed=8)
    begun = start(SpotTask(), other)
    assert begun.step == 0
    assert same(begun.net, first.average)
    assert same(begun.average, first.average)


def test_weights_of_another_network_are_refused_by_a_sentence(plan, tmp_path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"nothing")
    with pytest.raises(FileError, match="cannot be used to start from"):
        start(SpotTask(), replace(plan, weights=file))
