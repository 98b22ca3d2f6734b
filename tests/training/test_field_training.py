"""Pairs with known fields, and what networks that answer with a field are trained to do."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from retreg_server.registration.networks.field_net import FieldArchitecture, field_net_from_dict
from retreg_server.registration.networks.weights import load_network
from retreg_server.registration.numerics.fields import identity_grid, interpolated, warped
from retreg_server.training.export import Bundle, export_bundle
from retreg_server.training.eyes import phantom_retina
from retreg_server.training.field_losses import (
    bending,
    consistent,
    endpoint_error,
    field_loss,
    misfit,
    unlikeness,
)
from retreg_server.training.field_task import FieldTask
from retreg_server.training.head_pairs import head_pair
from retreg_server.training.known_pairs import joined, known_fields, partners
from retreg_server.training.label_maps import VOXELS, LabelMap
from retreg_server.training.loop import Plan, train
from retreg_server.training.vessel_pairs import vessel_pair
from retreg_server.training.warps import WarpRanges, random_warp

TINY = FieldArchitecture("smoothproper", 2, width=4, depth=3, radii=(3, 1), steps=1)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def eye():
    return phantom_retina(1)


@pytest.fixture(scope="module")
def vessels(eye):
    generator = rng(1)
    return joined([vessel_pair(eye, [], generator) for _ in range(3)])


@pytest.fixture(scope="module")
def heads():
    """Two label maps of nested balls, one larger than the other."""
    axis = (2 * torch.arange(VOXELS) + 1) / VOXELS - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    radius = (x**2 + (0.8 * y) ** 2 + z**2).sqrt()
    maps = []
    for size in (0.5, 0.56):
        labels = torch.zeros((VOXELS,) * 3, dtype=torch.int16)
        for label, share in ((500, 1.2), (3, 1.0), (2, 0.75), (4, 0.3)):
            labels[radius < share * size] = label
        labels[(radius < 0.2 * size) & (x > 0)] = 43
        maps.append(LabelMap(f"balls-{size}", labels))
    return maps


def test_the_known_fields_lead_there_and_back():
    warp = random_warp(2, WarpRanges(5, shift=0.1, bend=0.05), 1.0, rng(3))
    shown = torch.ones(1, 1, 96, 128, dtype=torch.bool)
    fields, seen = known_fields(warp, (shown, shown))
    assert fields.shape == (2, 2, 48, 64)
    # By the definition of the warp: where a pixel of fixed is found in moving, in pixels.
    places = identity_grid((48, 64))
    places = places.reshape(-1, 2)
    truth = (warp.anatomy_of(places) - places) * torch.tensor([64, 48])
    torch.testing.assert_close(fields[0].flatten(1).T, truth, atol=1e-3, rtol=0)
    back = fields[:1] + warped(fields[1:], fields[:1] / 2)
    inner = seen[:1, :, 4:-4, 4:-4]
    assert (back[..., 4:-4, 4:-4] * inner).abs().max() < 0.3
    assert 0.5 < seen.mean() < 1


def test_partners_exchange_fixed_and_moving_of_every_pair():
    values = torch.arange(6)[:, None]
    assert partners(values).flatten().tolist() == [1, 0, 3, 2, 5, 4]


def test_the_true_field_makes_vessel_maps_alike(vessels):
    truth = unlikeness(vessels.images, vessels.fields, vessels.seen)
    still = unlikeness(vessels.images, torch.zeros_like(vessels.fields), vessels.seen)
    assert truth < 0.5 * still
    assert consistent(vessels.fields)[vessels.seen > 0].mean() > 0.98


def test_heads_of_one_person_fit_under_the_true_field_and_those_of_two_have_none(heads):
    pair = head_pair(heads[0], heads[0], rng(2))
    assert misfit(pair.tissues, pair.fields) < 0.5 * misfit(pair.tissues, 0 * pair.fields)
    truth = unlikeness(pair.images, pair.fields, pair.seen)
    assert truth < unlikeness(pair.images, 0 * pair.fields, pair.seen)
    other = head_pair(*heads, rng(2))
    assert not other.seen.any()
    assert endpoint_error(other.fields, 0 * other.fields, other.seen) == 0
    np.testing.assert_array_less(other.tissues.sum(dim=1), 1 + 1e-5)


def test_a_place_that_is_hidden_in_one_direction_counts_for_nothing():
    there = torch.zeros(2, 2, 16, 16)
    there[0, 0, :, :8] = 6.0  # nothing leads back from where this half is sent
    mask = consistent(there)
    assert mask[0, 0, 4, 2] == 0
    assert mask[0, 0, 4, 13] == 1


def test_the_endpoint_error_is_a_distance_in_pixels_where_seen():
    truth = torch.zeros(1, 2, 8, 8)
    field = truth.clone()
    field[0, 0, :, :4], field[0, 1, :, :4] = 3.0, 4.0
    seen = torch.zeros(1, 1, 8, 8)
    seen[..., :2] = 1
    assert float(endpoint_error(field, truth, seen)) == pytest.approx(5.0, abs=0.1)
    assert float(endpoint_error(interpolated(field, (4, 4)), truth, seen)) == pytest.approx(
        5, abs=0.1
    )
    assert float(bending(torch.ones(1, 2, 8, 8))) == 0


def test_the_loss_is_least_for_the_truth(vessels):
    right = field_loss((vessels.fields,), vessels)
    for wrong in (0 * vessels.fields, vessels.fields + 1.5):
        assert right < field_loss((wrong,), vessels)


@pytest.fixture
def task(eye):
    unseen = (joined([vessel_pair(eye, [], rng(50))]),)
    return FieldTask(TINY, lambda generator: vessel_pair(eye, [], generator), unseen, 1.0)


def test_a_few_steps_bring_the_error_down_and_the_weights_can_be_shipped(task, tmp_path):
    plan = Plan(tmp_path / "run", steps=25, batch=1, rate=4e-3, minutes_between_checks=60)
    run = train(task, plan)
    row = json.loads((plan.folder / "training.jsonl").read_text().splitlines()[-1])
    assert row["error"] < 0.9 * row["error_before"]
    bundle = Bundle("tiny", "A test", TINY, 384, None, "vessels", "px", {"seed": 0}, ("eyes",), "x")
    export_bundle(plan.folder, tmp_path, bundle)
    net, metadata = load_network("tiny", field_net_from_dict, tmp_path)
    assert metadata.template.numel() == 0
    images = task.unseen[0].images
    with torch.no_grad():
        shipped, kept = net(images, partners(images))[-1], run.average(images, partners(images))[-1]
    assert (shipped - kept).abs().mean() < 0.05
    card = metadata.card["network_data_format"]["outputs"]["field"]
    assert card["num_channels"] == 2


def test_the_task_counts_dice_of_two_people_only(heads):
    architecture = FieldArchitecture("voxelmorph", 3, width=2, depth=2)
    pairs = (head_pair(heads[0], heads[0], rng(1)), head_pair(*heads, rng(1)))
    task = FieldTask(architecture, lambda generator: head_pair(*heads, generator), pairs, 3.0)
    torch.manual_seed(0)
    net = architecture.build()
    numbers = task.validation(net)
    assert numbers["dice_before"] == pytest.approx(
        1 - float(misfit(pairs[1].tissues, 0 * pairs[1].fields)), abs=1e-4
    )
    assert numbers["error"] == pytest.approx(numbers["error_before"], rel=0.05)  # untrained
