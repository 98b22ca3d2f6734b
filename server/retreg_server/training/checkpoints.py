"""Checkpoints of a training run: safetensors and JSON, nothing that could be executed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from retreg.errors import FileError

TENSORS, STATE = "checkpoint.safetensors", "checkpoint.json"
N = TypeVar("N", bound=nn.Module)


@dataclass(eq=False)
class Run(Generic[N]):
    """A network in training: the average of its weights is what gets evaluated and shipped."""

    net: N
    average: N
    optimiser: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    best: float = float("inf")


def save_run(folder: Path, run: Run[N]) -> None:
    """Write the run so that load_run continues it; an interrupted write leaves the old one."""
    tensors = {f"net.{name}": value for name, value in run.net.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in run.average.state_dict().items()}
    for index, values in run.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in values.items()}
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    _replace(folder / TENSORS, lambda path: save_file(copies, path))
    state = {"step": run.step, "seconds": run.seconds, "best": run.best}
    _replace(folder / STATE, lambda path: path.write_text(json.dumps(state)))


def save_weights(path: Path, net: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Write the weights of a network alone."""
    copies = {name: value.detach().to("cpu", dtype).contiguous().clone()
              for name, value in net.state_dict().items()}
    _replace(path, lambda part: save_file(copies, part))


def load_weights(path: Path, net: nn.Module) -> None:
    """Put the weights that save_weights wrote, of any type, into the network.

    Raises FileError when the file cannot be read or belongs to another network.
    """
    try:
        net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise FileError(
            f"The weights in {path.name} cannot be used to start from; give the .safetensors file "
            "of a network with the same options."
        ) from error


def load_run(folder: Path, run: Run[N]) -> bool:
    """Continue where the folder's checkpoint stopped; False when there is none.

    Raises FileError when the checkpoint is damaged or belongs to another network.
    """
    if not (folder / TENSORS).exists():
        return False
    try:
        tensors = load_file(folder / TENSORS)
        stored = json.loads((folder / STATE).read_text())
    except (OSError, SafetensorError, ValueError) as error:
        raise FileError(
            f"The checkpoint in {folder.name} is damaged; delete it, or choose an empty folder."
        ) from error
    try:
        run.net.load_state_dict(_below(tensors, "net."))
        run.average.load_state_dict(_below(tensors, "average."))
    except RuntimeError as error:
        raise FileError(
            f"The checkpoint in {folder.name} belongs to another network; continue it with the "
            "options it was started with, or choose an empty folder."
        ) from error
    optimiser = run.optimiser.state_dict()
    state: dict[int, dict[str, Any]] = {}
    for name, value in _below(tensors, "optimiser.").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    run.optimiser.load_state_dict({**optimiser, "state": state})
    run.step, run.seconds, run.best = stored["step"], stored["seconds"], stored["best"]
    return True


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _replace(path: Path, write: Any) -> None:
    temporary = path.with_suffix(path.suffix + ".part")
    write(temporary)
    temporary.chmod(0o644)  # safetensors writes files that only their owner may read
    temporary.replace(path)
