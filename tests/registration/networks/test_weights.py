"""Trained weights are data: checked by hash, refused with a sentence."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from retreg.errors import FileError
from retreg_server.registration.networks.keypoint_net import (
    Architecture,
    KeypointNet,
    net_from_dict,
)
from retreg_server.registration.networks.weights import load_network


@pytest.fixture
def bundle(tmp_path):
    net = KeypointNet(Architecture("light", 2, 16, width=4, levels=3))
    folder = tmp_path / "toy"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    weights = folder / "models" / "model.safetensors"
    save_file({name: value.half() for name, value in net.state_dict().items()}, weights)
    card = {
        "retreg": {
            "architecture": net.architecture.as_dict(),
            "pixels": 32,
            "spacing_mm": None,
            "template": [[0.0, 0.0]] * 16,
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        }
    }
    (folder / "configs" / "metadata.json").write_text(json.dumps(card))
    return tmp_path, net, card


def rewrite(folder, card):
    (folder / "toy" / "configs" / "metadata.json").write_text(json.dumps(card))


def test_weights_are_those_that_were_stored_up_to_half_precision(bundle):
    folder, net, _ = bundle
    loaded, metadata = load_network("toy", net_from_dict, folder)
    assert metadata.pixels == 32
    assert metadata.template.shape == (16, 2)
    assert not loaded.training
    image = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert (loaded(image).points - net.eval()(image).points).abs().max() < 0.01


def test_a_changed_byte_is_refused_with_a_sentence(bundle):
    folder, _, _ = bundle
    weights = folder / "toy" / "models" / "model.safetensors"
    stored = bytearray(weights.read_bytes())
    stored[-1] ^= 1
    weights.write_bytes(bytes(stored))
    with pytest.raises(FileError, match=r"The weights of toy are not used: their SHA-256 .*\."):
        load_network("toy", net_from_dict, folder)


def test_weights_of_another_network_are_refused(bundle):
    folder, _, card = bundle
    card["retreg"]["architecture"]["width"] = 8
    rewrite(folder, card)
    with pytest.raises(FileError, match="do not fit the architecture"):
        load_network("toy", net_from_dict, folder)


@pytest.mark.parametrize("damage", [{}, {"retreg": {}}, []])
def test_damaged_metadata_is_refused(bundle, damage):
    folder, _, _ = bundle
    rewrite(folder, damage)
    with pytest.raises(FileError, match=r"metadata\.json is missing or damaged"):
        load_network("toy", net_from_dict, folder)


def test_missing_weights_are_refused(bundle):
    folder, _, _ = bundle
    (folder / "toy" / "models" / "model.safetensors").unlink()
    with pytest.raises(FileError, match="cannot be read"):
        load_network("toy", net_from_dict, folder)
    with pytest.raises(FileError, match="metadata"):
        load_network("another", net_from_dict, folder)
