"""The parts of the recipe of segreg-fundus: plates, pairs, damages, critic, losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retreg_server.registration.networks.segreg_net import MULTIPLE, SegRegArchitecture
from retreg_server.registration.numerics.fields import interpolated, warped
from retreg_server.training.checkpoints import load_weights, save_weights
from retreg_server.training.damaged_vessels import DAMAGES, damaged, possible_damages
from retreg_server.training.export import export_bundle
from retreg_server.training.loop import Plan, train
from retreg_server.training.plate_views import PIECE, PlateView
from retreg_server.training.recipe import TrainingOrder, recipe_of
from retreg_server.training.segreg_fundus import SegRegTask
from retreg_server.training.segreg_losses import (
    PAPER,
    Weights,
    both_ways,
    content,
    joint_loss,
    self_comparison,
    total_variation,
    unlikeness,
    vessel_misfit,
)
from retreg_server.training.segreg_pairs import segreg_pair
from retreg_server.training.segreg_pictures import LAYERS, Plate, made_up_plates
from retreg_server.training.vessel_critic import (
    VesselCritic,
    gram_matrices,
    mean_style,
    separation,
    style_distance,
)

TINY = SegRegArchitecture(width=2, features=4, radius=1)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def plate():
    """Straight vessels of several widths on a square plate of 256 pixels, seen by two cameras."""
    axis = torch.arange(256.0)
    vessels = torch.zeros(256, 256)
    for place, half in ((40, 1), (90, 3), (150, 2), (210, 5)):
        vessels[(axis - place).abs() <= half] = 1
        vessels[:, (axis - place - 10).abs() <= half] = 1
    layers = torch.stack([-0.8 * vessels, 0.7 * vessels, vessels, 0.9 * vessels,
                          torch.ones_like(vessels)])  # fmt: skip
    return Plate("grid", layers[None])


@pytest.fixture(scope="module")
def task(plate):
    torch.manual_seed(0)
    critic = VesselCritic().requires_grad_(False)
    style = mean_style(critic, [PlateView(plate.layers).layer("vessels")])
    unseen = (segreg_pair(plate, rng(9)),)
    return SegRegTask(TINY, [plate], [plate], critic, style, unseen, Weights())


def test_a_made_up_eye_is_dark_and_bright_at_the_same_vessels(tmp_path):
    made = made_up_plates(tmp_path / "plates.npz", 5, 1)[0]
    again = made_up_plates(tmp_path / "plates.npz", 5, 1)[0]
    assert torch.equal(made.layers, again.layers)
    dark, bright, vessels, _, inside = (made.layers[0, n] for n in range(len(LAYERS)))
    on, off = vessels > 0.9, (vessels == 0) & (inside > 0)
    assert dark[on].mean() < dark[off].mean() - 0.3
    assert bright[on].mean() > bright[off].mean() + 0.3


@pytest.mark.parametrize("seed", range(3))
def test_the_vessels_of_a_pair_meet_under_its_field_in_both_directions(plate, seed):
    pair = segreg_pair(plate, rng(seed))
    assert pair.pictures.shape == (2, 1, PIECE, PIECE)
    fields = interpolated(pair.fields, (PIECE, PIECE))
    for own, other in ((0, 1), (1, 0)):
        field = fields[own : own + 1]
        seen = interpolated(pair.seen[own : own + 1], (PIECE, PIECE)).floor()
        vessels = pair.vessels[own : own + 1]
        found = warped(pair.vessels[other : other + 1], field)
        after = ((found - vessels).square() * seen).mean()
        before = ((pair.vessels[other : other + 1] - vessels).square() * seen).mean()
        assert after < 0.3 * before


@pytest.mark.parametrize("kind", DAMAGES)
def test_every_damage_changes_the_map_and_stays_between_0_and_1(plate, kind):
    view = PlateView(plate.layers)
    wrong = damaged(view, kind, rng(1))
    assert wrong.shape == view.layer("vessels").shape
    assert wrong.min() >= 0
    assert wrong.max() <= 1
    assert (wrong - view.layer("vessels")).abs().mean() > 0.003


def test_masks_without_a_photograph_have_no_damage_that_needs_one(plate):
    layers = plate.layers.clone()
    layers[:, [0, 1, 3]] = 0
    assert len(possible_damages(PlateView(layers))) == len(DAMAGES) - 2
    assert possible_damages(PlateView(plate.layers)) == DAMAGES


def test_gram_matrices_are_those_of_the_equation():
    maps = torch.rand(2, 1, 12, 12, generator=rng(2))
    features = torch.cat([maps, 2 * maps, 1 - maps], dim=1)
    (found,) = gram_matrices(lambda images: (torch.cat([images, 2 * images, 1 - images], 1),), maps)
    values = features.numpy().astype(np.float64)
    for b in range(2):
        for i in range(3):
            for k in range(3):
                expected = (values[b, i] * values[b, k]).mean() / 3
                assert float(found[b, i, k]) == pytest.approx(expected, rel=1e-4)


def test_style_counts_how_vessels_look_and_not_where_they_are():
    torch.manual_seed(1)
    critic = VesselCritic().requires_grad_(False)
    lines = torch.zeros(1, 1, 64, 64)
    lines[..., 16:18, :] = lines[..., 48:50, :] = 1
    target = gram_matrices(critic, lines)
    moved = style_distance(gram_matrices(critic, lines.roll(8, 2)), target)
    thick = style_distance(gram_matrices(critic, torch.maximum(lines, lines.roll(3, 2))), target)
    assert float(style_distance(target, target)) == 0
    assert float(moved) < 0.1 * float(thick)
    assert separation(critic, target, [lines.roll(8, 2)], [torch.ones(1, 1, 64, 64)]) == 1
    assert separation(critic, target, [torch.ones(1, 1, 64, 64)], [lines.roll(8, 2)]) == 0


class Shifting:
    """A network that marks the pixel on the left of every vessel."""

    def segmented(self, picture, _branch):
        return picture, picture.roll(-1, 3)


class Faithful:
    def segmented(self, picture, _branch):
        return picture, picture


def test_self_comparison_finds_a_network_that_takes_one_side_of_vessels():
    picture = torch.zeros(1, 1, 16, 16)
    picture[..., 5:8] = 1
    inside = torch.ones_like(picture)
    for net, misses in ((Shifting(), True), (Faithful(), False)):
        _, vessels, turned = both_ways(net, picture, "dark")
        assert bool(self_comparison(vessels, turned, inside) > 0) is misses


def test_content_is_compared_where_both_pictures_show_something():
    vessels, found = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    found[..., :4] = 0.5
    both = torch.zeros_like(found)
    both[..., :2] = 1
    assert float(content(found, vessels, both)) == pytest.approx(0.25)
    both[:] = 0
    both[..., 6:] = 1
    assert float(content(found, vessels, both)) == 0


def test_total_variation_of_a_shear_is_its_slope():
    x = torch.arange(10.0).expand(1, 1, 10, 10)
    field = torch.cat([0.3 * x, torch.zeros_like(x)], dim=1)
    assert float(total_variation(field)) == pytest.approx(0.15, rel=1e-5)
    assert float(total_variation(torch.full((1, 2, 9, 9), 4.0))) == 0


def test_like_pictures_are_not_unlike():
    picture = 2 * torch.rand(1, 1, 32, 32, generator=rng(3)) - 1
    assert float(unlikeness(picture, picture)) == pytest.approx(0, abs=1e-5)
    assert float(unlikeness(-picture, picture)) > 1


def test_the_true_vessels_fit_best():
    truth = torch.zeros(1, 1, 16, 16)
    truth[..., 4:6] = 1
    wrong = [1 - truth, truth.roll(2, 3), torch.full_like(truth, 0.5)]
    assert all(vessel_misfit(truth, truth) < 0.01 < vessel_misfit(each, truth) for each in wrong)


def test_the_paper_needs_no_truth(task, plate):
    pair = segreg_pair(plate, rng(4))
    torch.manual_seed(2)
    net = TINY.build()
    lies = type(pair)(pair.branches, pair.pictures, pair.inside, 1 - pair.vessels,
                      -pair.fields, pair.seen)  # fmt: skip
    first, second = (joint_loss(net, each, task.perceptual, task.style, PAPER)
                     for each in (pair, lies))  # fmt: skip
    assert torch.equal(first, second)
    known = [joint_loss(net, each, task.perceptual, task.style, Weights()) for each in (pair, lies)]
    assert known[0] != known[1]


def test_the_last_layer_is_shared_and_all_parts_learn(task, plate):
    torch.manual_seed(3)
    net = TINY.build()
    pair = segreg_pair(plate, rng(5))
    both = type(pair)(("dark", "bright"), *(getattr(pair, name) for name in (
        "pictures", "inside", "vessels", "fields", "seen")))  # fmt: skip
    joint_loss(net, both, task.perceptual, task.style, PAPER).backward()
    for name, value in net.named_parameters():
        assert value.grad is not None, name
    for part in (net.branches["dark"], net.branches["bright"], net.shared, net.registration):
        assert sum(float(value.grad.abs().sum()) for value in part.parameters()) > 0
    assert not any(value.requires_grad for value in task.perceptual.parameters())


def test_a_run_learns_and_leaves_weights_that_can_be_loaded(task, tmp_path):
    from retreg_server.registration.networks.segreg_net import segreg_net_from_dict
    from retreg_server.registration.networks.weights import load_network

    plan = Plan(tmp_path / "run", steps=3, batch=1, minutes_between_checks=1e9)
    before = task.validation(TINY.build())
    assert set(before) == {"error", "error_before", "vessel_dice"}
    run = train(task, plan)
    bundle = recipe_of("segreg-fundus").bundle(
        TrainingOrder(None, tmp_path / "run", 0, 0, "cpu"), {"seed": 0, "keypoints": 1}, "a CPU"
    )
    tiny = type(bundle)(**{**vars(bundle), "architecture": TINY})
    save_weights(tmp_path / "run" / "critic.safetensors", task.perceptual)
    home = export_bundle(tmp_path / "run", tmp_path / "w", tiny)
    load_weights(home / "models" / "critic.safetensors", VesselCritic())
    net, metadata = load_network("segreg-fundus", segreg_net_from_dict, tmp_path / "w")
    assert metadata.card["network_data_format"]["outputs"]["vessels"]["num_channels"] == 1
    assert "keypoints" not in metadata.card["retreg"]["recipe"]
    side = 2 * MULTIPLE
    picture = torch.rand(1, 1, side, side, generator=rng(6))
    with torch.no_grad():
        features, vessels = net.segmented(picture, "bright")
        trained = run.average.segmented(picture, "bright")[1]
    assert (vessels - trained).abs().max() < 0.01
    assert net.field(features, features).shape == (1, 2, side, side)
