"""Networks with trained weights, read as data from MONAI-bundle-shaped folders.

weights/NAME/configs/metadata.json describes the network and names the SHA-256 of
weights/NAME/models/model.safetensors. Nothing in such a folder is ever executed. torch is loaded
with the first network, so that the descriptions are at hand without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from retreg.errors import FileError

if TYPE_CHECKING:
    import torch
    from torch import nn

FOLDER = Path(__file__).parents[1] / "weights"
METADATA, TENSORS = Path("configs/metadata.json"), Path("models/model.safetensors")
N = TypeVar("N", bound="nn.Module")


@dataclass(frozen=True, eq=False)
class NetMetadata:
    """How to use a network.

    pixels: side of its square or cubic input. spacing_mm: size of a voxel, None for pictures.
    sha256: of the weights. card: all of metadata.json, with recipe, seed and measured accuracy.
    """

    name: str
    pixels: int
    spacing_mm: float | None
    sha256: str
    card: dict[str, Any]

    @cached_property
    def template(self) -> torch.Tensor:
        """(k, d) normalised, the average place of each keypoint in an upright image; (0,) for
        networks without keypoints."""
        import torch

        return torch.tensor(self.card["retreg"].get("template", []), dtype=torch.float32)


def load_network(
    name: str, build: Callable[[dict[str, Any]], N], folder: Path = FOLDER
) -> tuple[N, NetMetadata]:
    """The network of that name in evaluation mode, float32 on the CPU, and its description.

    build: makes the network, without its weights, from the architecture that the card declares.
    Raises FileError when the files are missing or damaged or the weights have another SHA-256
    than the metadata says.
    """
    metadata = load_metadata(name, folder)
    return _filled(build(metadata.card["retreg"]["architecture"]), metadata, folder), metadata


def _filled(net: N, metadata: NetMetadata, folder: Path) -> N:
    """The network with the stored weights, which are checked first."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        stored = load(_stored(metadata, folder))
        net.load_state_dict({key: value.float() for key, value in stored.items()})
    except (SafetensorError, RuntimeError) as error:
        raise _misfit(metadata.name) from error
    return net.eval().requires_grad_(False)


def load_arrays(name: str, folder: Path = FOLDER) -> dict[str, np.ndarray]:
    """The weights of that name as float32 arrays, for a network that runs without torch.

    Raises FileError as load_network does.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        stored = load(_stored(load_metadata(name, folder), folder))
    except SafetensorError as error:
        raise _misfit(name) from error
    return {key: value.astype(np.float32) for key, value in stored.items()}


def _stored(metadata: NetMetadata, folder: Path) -> bytes:
    """The file with the weights, after its SHA-256 was compared with the one of the card."""
    try:
        stored = (folder / metadata.name / TENSORS).read_bytes()
    except OSError as error:
        raise _unusable(metadata.name, "the file with the weights cannot be read") from error
    if hashlib.sha256(stored).hexdigest() != metadata.sha256:
        raise _unusable(metadata.name, "their SHA-256 is not the one in metadata.json")
    return stored


def _misfit(name: str) -> FileError:
    return _unusable(name, "they do not fit the architecture in metadata.json")


def is_shipped(name: str, folder: Path = FOLDER) -> bool:
    """Whether there are trained weights of that name; they may still be refused when loaded."""
    return (folder / name / METADATA).is_file() and (folder / name / TENSORS).is_file()


@cache
def load_metadata(name: str, folder: Path = FOLDER) -> NetMetadata:
    """The description alone, without reading the weights. Raises FileError."""
    try:
        card = json.loads((folder / name / METADATA).read_text(encoding="utf-8"))
        own = card["retreg"]
        return NetMetadata(
            name=name,
            pixels=int(own["pixels"]),
            spacing_mm=own["spacing_mm"],
            sha256=str(own["sha256"]),
            card=card,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unusable(name, "metadata.json is missing or damaged") from error


def _unusable(name: str, reason: str) -> FileError:
    return FileError(
        f"The weights of {name} are not used: {reason}. Install the package again, or train them "
        f"with `retreg train {name}`."
    )
