"""The weights in the package: small, documented, and true to quarter turns."""

from __future__ import annotations

import pytest
import torch

from retreg_server.registration.keymorph.detection import axis_rotations, detect, turned
from retreg_server.registration.networks.keypoint_net import net_from_dict
from retreg_server.registration.networks.weights import (
    FOLDER,
    TENSORS,
    load_metadata,
    load_network,
)
from retreg_server.training.eyes import phantom_retina
from retreg_server.training.warps import smooth_noise

NAMES = ("keymorph-brain", "keymorph-fundus")


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_are_small_and_say_how_they_were_made(name):
    assert (FOLDER / name / TENSORS).stat().st_size < 20e6
    own = load_metadata(name).card["retreg"]
    assert isinstance(own["recipe"]["seed"], int)
    assert own["hours"] > 0
    assert own["trained_on"]
    assert own["hardware"]
    assert own["measured"]["error"] > 0
    log = FOLDER / name / "docs" / "training.jsonl"
    assert len(log.read_text().splitlines()) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_fit_their_network_and_template(name):
    net, metadata = load_network(name, net_from_dict)
    architecture = net.architecture
    assert metadata.template.shape == (architecture.keypoints, architecture.dimensions)
    with torch.no_grad():
        found = net(torch.rand(2, 1, *(metadata.pixels,) * architecture.dimensions))
    assert torch.isfinite(found.points).all()
    assert (found.variance > 0).all()


def ball_with_texture(side):
    generator = torch.Generator().manual_seed(4)
    axis = (2 * torch.arange(side) + 1) / side - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    inside = (x / 0.6) ** 2 + (y / 0.75) ** 2 + (z / 0.6) ** 2 < 1
    return inside * (1 + 0.3 * smooth_noise(1, 7, (side,) * 3, generator))


@pytest.mark.parametrize("name", NAMES)
def test_keypoints_turn_with_the_image_by_quarter_turns(name):
    net, metadata = load_network(name, net_from_dict)
    if metadata.spacing_mm is None:
        image = phantom_retina(9000).canvas[:, :1, 64:448, 64:448]
    else:
        image = ball_with_texture(metadata.pixels)
    dimensions = metadata.template.shape[1]
    rotation = axis_rotations(dimensions)[-1]
    upright, quarter = (
        detect(net, each, metadata.template, metadata.pixels, recentre=dimensions == 3)
        for each in (image, turned(image, rotation))
    )
    # Not exactly: the percentiles of the intensities come from every fifth pixel.
    expected = upright[0].points @ rotation.T
    assert min(float((each.points - expected).abs().median()) for each in quarter) < 0.01
