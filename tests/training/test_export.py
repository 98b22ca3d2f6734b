"""Weights that leave a training run can be loaded, and say what they are."""

from __future__ import annotations

import json

import pytest
import torch

from retreg.errors import FileError
from retreg_server.registration.networks.keypoint_net import (
    Architecture,
    KeypointNet,
    net_from_dict,
)
from retreg_server.registration.networks.weights import load_network
from retreg_server.training.checkpoints import save_weights
from retreg_server.training.export import Bundle, export_bundle

ARCHITECTURE = Architecture("light", 2, 16, width=4, levels=3)


@pytest.fixture
def bundle():
    return Bundle(
        name="toy",
        title="Toy keypoints",
        architecture=ARCHITECTURE,
        pixels=32,
        spacing_mm=None,
        template=torch.rand(16, 2),
        input_rule="as it comes",
        error_unit="pixels",
        recipe={"seed": 3},
        trained_on=("made-up pictures",),
        hardware="1 thread",
    )


def test_an_exported_network_is_loaded_with_its_card(bundle, tmp_path):
    net = KeypointNet(ARCHITECTURE).eval()
    run = tmp_path / "run"
    run.mkdir()
    save_weights(run / "best.safetensors", net)
    (run / "best.json").write_text(json.dumps({"step": 5, "seconds": 1800.0, "error": 1.25}))
    (run / "training.jsonl").write_text('{"step": 5}\n')
    home = export_bundle(run, tmp_path / "weights", bundle)
    loaded, metadata = load_network("toy", net_from_dict, tmp_path / "weights")
    assert metadata.pixels == 32
    assert torch.allclose(metadata.template, bundle.template, atol=1e-5)
    own = metadata.card["retreg"]
    assert own["hours"] == 0.5
    assert own["measured"]["error"] == 1.25
    assert own["recipe"] == {"seed": 3}
    assert "1.25" in (home / "docs" / "README.md").read_text()
    image = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert (loaded(image).points - net(image).points).abs().max() < 0.01
    assert sum(file.stat().st_size for file in home.rglob("*") if file.is_file()) < 2e6


def test_a_run_without_validated_weights_is_not_exported(bundle, tmp_path):
    with pytest.raises(FileError, match="no validated weights yet"):
        export_bundle(tmp_path, tmp_path / "weights", bundle)
