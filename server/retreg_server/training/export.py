"""From a training run to a folder with weights that can be shipped, MONAI-bundle-shaped.

configs/metadata.json, models/model.safetensors (float16), docs/README.md (the model card) and
docs/training.jsonl (the log).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from retreg.errors import FileError
from retreg_server.registration.networks.field_net import FieldArchitecture
from retreg_server.registration.networks.keypoint_net import Architecture
from retreg_server.registration.networks.segreg_net import STRIDE, SegRegArchitecture
from retreg_server.registration.networks.superglue_net import GlueArchitecture
from retreg_server.registration.networks.superpoint_net import CELL, PointArchitecture
from retreg_server.registration.networks.weights import METADATA, TENSORS
from retreg_server.training.checkpoints import save_weights


@dataclass(frozen=True, eq=False)
class Bundle:
    """What the card of a model says besides what the run itself knows.

    template: (k, d) of networks that find keypoints. recipe: options of the training by name.
    trained_on: one sentence each. beside: files of the run that are shipped beside the weights.
    """

    name: str
    title: str
    architecture: (
        Architecture | FieldArchitecture | PointArchitecture | SegRegArchitecture | GlueArchitecture
    )
    pixels: int
    spacing_mm: float | None
    input_rule: str
    error_unit: str
    recipe: dict[str, Any]
    trained_on: tuple[str, ...]
    hardware: str
    template: torch.Tensor | None = None
    beside: tuple[str, ...] = ()


def export_bundle(run: Path, folder: Path, bundle: Bundle) -> Path:
    """Write the best weights of a run below folder / bundle.name and return that path.

    Raises FileError when the run has not been validated yet or is of another network.
    """
    best = run / "best.safetensors"
    if not best.exists():
        raise FileError(
            f"The run in {run.name} has no validated weights yet; let it train until its first "
            "validation."
        )
    net = bundle.architecture.build()
    try:
        net.load_state_dict(load_file(best))
    except (SafetensorError, RuntimeError) as error:
        raise FileError(
            f"The weights of the run in {run.name} are damaged or of another network; export it "
            "with the recipe and the options that it was trained with."
        ) from error
    home = folder / bundle.name
    for part in ("configs", "models", "docs"):
        (home / part).mkdir(parents=True, exist_ok=True)
    save_weights(home / TENSORS, net, torch.float16)
    for name in bundle.beside:
        shutil.copyfile(run / name, home / "models" / name)
    measured = json.loads((run / "best.json").read_text())
    card = _card(bundle, measured, hashlib.sha256((home / TENSORS).read_bytes()).hexdigest())
    (home / METADATA).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(run / "training.jsonl", home / "docs" / "training.jsonl")
    (home / "docs" / "README.md").write_text(_readme(bundle, measured), encoding="utf-8")
    return home


def hardware(device: str) -> str:
    """The kind of hardware, without the name of a machine."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} thread(s) of a processor, no GPU"


def _card(bundle: Bundle, measured: dict[str, float], sha256: str) -> dict[str, Any]:
    return {
        "version": version("retreg"),
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.split("+")[0],
        "name": bundle.name,
        "task": bundle.title,
        "network_data_format": {"inputs": _inputs(bundle), "outputs": _outputs(bundle)},
        "retreg": {
            "architecture": bundle.architecture.as_dict(),
            "pixels": bundle.pixels,
            "spacing_mm": bundle.spacing_mm,
            "intensity_rule": bundle.input_rule,
            "sha256": sha256,
            "recipe": bundle.recipe,
            "trained_on": list(bundle.trained_on),
            "hours": round(measured["seconds"] / 3600, 3),
            "hardware": bundle.hardware,
            "measured": {key: round(value, 4) for key, value in measured.items()},
            "measured_unit": bundle.error_unit,
            **_keypoint_rows(bundle),
        },
    }


def _inputs(bundle: Bundle) -> dict[str, Any]:
    """The inputs of the network, as MONAI's bundles describe them."""
    if isinstance(bundle.architecture, GlueArchitecture):
        points = {"type": "tuples", "dtype": "float32", "num_channels": bundle.architecture.width}
        return {name: {**points, "format": "descriptors"} for name in ("first", "second")}
    image = {
        "type": "image",
        "format": "magnitude",
        "num_channels": 1,
        "spatial_shape": [bundle.pixels] * bundle.architecture.dimensions,
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": {"0": "image"},
    }
    return {"image": image}


def _outputs(bundle: Bundle) -> dict[str, Any]:
    """The outputs of the network, as MONAI's bundles describe them."""
    d = bundle.architecture.dimensions
    if isinstance(bundle.architecture, SegRegArchitecture):
        return _joint_outputs(bundle.pixels)
    if isinstance(bundle.architecture, GlueArchitecture):
        return {"scores": {"type": "tuples", "format": "scores of pairs", "dtype": "float32"}}
    if isinstance(bundle.architecture, Architecture):
        shape, kind = [d], {"type": "tuples", "format": "keypoints", "value_range": [-1, 1]}
        channels, name = bundle.architecture.keypoints, "points"
    elif isinstance(bundle.architecture, PointArchitecture):
        shape, kind = [bundle.pixels // CELL] * d, {"type": "image", "format": "descriptors"}
        channels, name = bundle.architecture.descriptor, "descriptors"
    else:
        shape, kind = [bundle.pixels // 2] * d, {"type": "image", "format": "displacement field"}
        channels, name = d, "field"
    return {name: {**kind, "num_channels": channels, "spatial_shape": shape, "dtype": "float32"}}


def _joint_outputs(pixels: int) -> dict[str, Any]:
    """Those of a network that answers with a field and with vessels."""
    common = {"type": "image", "dtype": "float32"}
    nodes = [pixels // STRIDE] * 2
    return {
        "field": {
            **common, "format": "displacement field", "num_channels": 2, "spatial_shape": nodes
        },
        "vessels": {
            **common, "format": "segmentation", "num_channels": 1, "spatial_shape": [pixels] * 2,
            "value_range": [0, 1],
        },
    }  # fmt: skip


def _keypoint_rows(bundle: Bundle) -> dict[str, Any]:
    if isinstance(bundle.architecture, GlueArchitecture):
        return {"coordinates": "x, y from the middle in halves of the longer side, and strength"}
    if isinstance(bundle.architecture, PointArchitecture):
        return {"coordinates": "a descriptor for each cell of 8 pixels, order y, x"}
    if bundle.template is None:
        return {"coordinates": "displacements in pixels of the input, order x, y(, z)"}
    return {
        "coordinates": "normalised, -1 to 1 from edge to edge, order x, y(, z)",
        "template": [[round(x, 5) for x in row] for row in bundle.template.tolist()],
    }


def _readme(bundle: Bundle, measured: dict[str, float]) -> str:
    rows = "\n".join(f"| {key} | {value:.2f} |" for key, value in measured.items())
    sources = "\n".join(f"- {sentence}" for sentence in bundle.trained_on)
    return f"""# {bundle.name}

{bundle.title}.

Input: {bundle.input_rule}

Trained on (nothing else):

{sources}

Hardware: {bundle.hardware}; {measured["seconds"] / 3600:.2f} hours of training.

Measured when these weights were chosen (unit: {bundle.error_unit}). The choice was made by
`error`, on made-up images of heads or eyes that were never trained on; the rows that begin with
`real` were only logged, on real images that were neither trained on nor chosen by.

| quantity | value |
|---|---|
{rows}

`docs/training.jsonl` is the whole curve.
"""
