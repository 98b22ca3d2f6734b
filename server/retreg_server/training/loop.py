"""The training loop: seeded, resumable, on the CPU or a CUDA device.

Every step draws its samples from a generator seeded by (seed, step), so that a run that was
interrupted and continued does the same as one that was not.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn
from tqdm import tqdm

from retreg_server.training.checkpoints import (
    Run,
    load_run,
    load_weights,
    save_run,
    save_weights,
)
from retreg_server.training.journal import Journal

AVERAGING = 0.999
LONGEST_GRADIENT = 1.0
RECIPE = "recipe.json"
WARM_UP = 0.03  # share of the steps over which the learning rate rises
N = TypeVar("N", bound=nn.Module)
Built = TypeVar("Built", bound=nn.Module, covariant=True)


@dataclass(frozen=True)
class Plan:
    """How to train. steps: the learning rate falls to 0 along a cosine that ends there.

    weights: a .safetensors file of the same network to start from instead of fresh weights.
    recipe: what the model card is to say of it, kept in the folder as JSON.
    """

    folder: Path
    steps: int
    batch: int = 2
    rate: float = 2e-3
    seed: int = 0
    device: str = "cpu"
    mixed_precision: bool = False
    minutes_between_checks: float = 4.0
    weights: Path | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)


class Blueprint(Protocol[Built]):
    """What a network is built from."""

    def build(self) -> Built:
        """A network with fresh weights that has a switch mixed_precision."""
        ...


class Task(Protocol[N]):
    """What is trained: a network, samples, an objective, and a validation set."""

    @property
    def architecture(self) -> Blueprint[N]:
        """Builds the network."""
        ...

    def loss(
        self, net: N, batch: int, progress: float, generator: torch.Generator
    ) -> torch.Tensor:
        """The loss on fresh samples; progress runs from 0 to 1 over the training."""
        ...

    def validation(self, net: N) -> dict[str, float]:
        """Numbers to log; "error" is the one that chooses the best weights."""
        ...


def train(task: Task[N], plan: Plan) -> Run[N]:
    """Train until plan.steps, or continue; checkpoints and the journal go to plan.folder.

    Interrupting saves a checkpoint. Raises FileError when the folder holds another network.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    run = start(task, plan)
    load_run(plan.folder, run)
    (plan.folder / RECIPE).write_text(json.dumps(plan.recipe, indent=1), encoding="utf-8")
    checked = time.monotonic()
    with Journal(plan.folder) as journal, tqdm(
        total=plan.steps, initial=run.step, unit="step", mininterval=5
    ) as bar:
        try:
            while run.step < plan.steps:
                began = time.monotonic()
                loss = advance(task, plan, run)
                run.seconds += time.monotonic() - began
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                journal.loss(run.step, loss)
                if time.monotonic() - checked > 60 * plan.minutes_between_checks:
                    _check(task, plan, run, journal)
                    checked = time.monotonic()
        finally:
            save_run(plan.folder, run)
        _check(task, plan, run, journal)
    return run


def start(task: Task[N], plan: Plan) -> Run[N]:
    """A run at step 0, with weights that depend on the seed alone or are those of the plan.

    Raises FileError when the plan's weights are of another network.
    """
    torch.manual_seed(plan.seed)
    net = task.architecture.build()
    if plan.weights is not None:
        load_weights(plan.weights, net)
    net = net.to(plan.device)
    net.mixed_precision = plan.mixed_precision  # type: ignore[assignment]
    optimiser = torch.optim.Adam(net.parameters(), lr=plan.rate)
    return Run(net, copy.deepcopy(net), optimiser)


def advance(task: Task[N], plan: Plan, run: Run[N]) -> float:
    """One step of Adam; returns the loss."""
    for group in run.optimiser.param_groups:
        group["lr"] = plan.rate * _schedule(run.step, plan.steps)
    generator = torch.Generator(plan.device).manual_seed(plan.seed * 1_000_003 + run.step)
    loss = task.loss(run.net, plan.batch, run.step / plan.steps, generator)
    run.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.net.parameters(), LONGEST_GRADIENT)
    run.optimiser.step()
    _average(run)
    run.step += 1
    return float(loss.detach())


def _schedule(step: int, steps: int) -> float:
    """The share of the full learning rate: a short rise, then a cosine down to 0."""
    rise = min(1.0, (step + 1) / (WARM_UP * steps))
    return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


@torch.no_grad()
def _average(run: Run[N]) -> None:
    """Exponential average of the weights, short at the start."""
    keep = min(AVERAGING, (run.step + 1) / (run.step + 10))
    for mean, new in zip(run.average.parameters(), run.net.parameters(), strict=True):
        mean.lerp_(new.detach(), 1 - keep)
    for kept, latest in zip(run.average.buffers(), run.net.buffers(), strict=True):
        kept.copy_(latest)  # statistics of batch norm are averages already


@torch.no_grad()
def _check(task: Task[N], plan: Plan, run: Run[N], journal: Journal) -> None:
    """Validate the averaged weights, log, and keep them when they are the best so far."""
    numbers = task.validation(run.average)
    journal.check(run.step, run.seconds, numbers)
    if numbers["error"] < run.best:
        run.best = numbers["error"]
        _keep_best(plan.folder, run, numbers)
    save_run(plan.folder, run)


def _keep_best(folder: Path, run: Run[N], numbers: dict[str, float]) -> None:
    save_weights(folder / "best.safetensors", run.average)
    state = {"step": run.step, "seconds": run.seconds, **numbers}
    (folder / "best.json").write_text(json.dumps(state))
