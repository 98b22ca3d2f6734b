# ruff: noqa: T201 - a script that prints its result
"""Where the time of each pipeline goes: python benchmarks/profile_stages.py DATA [--write]

Registers a few pairs of DATA (the folder of `retreg evaluate`) by each pipeline, after a first run
that loads what the others have, and prints a table of its stages: processor time, how much of it
other threads take over (where it is next to nothing, all cores but one idle), the arithmetic of the
convolutions in it, which is counted while they run, and how far the stage is from the time that
this machine needs for that arithmetic alone. --write puts the tables into docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import cv2
import numpy as np
import torch

from retreg.image import Image
from retreg.messages import RegistrationRequest
from retreg_server.evaluation.brain import brain_cases
from retreg_server.evaluation.cases import subset
from retreg_server.evaluation.retina import retina_cases
from retreg_server.registration.engine import register
from retreg_server.registration.networks.superpoint_arrays import Convolution
from retreg_server.registration.registry import offered_models

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- stages: made by benchmarks/profile_stages.py -->", "<!-- end of stages -->"
CASES = {"retina": retina_cases, "brain": brain_cases}
PIPELINES = (  # model, transform, cases, their set
    ("auto-fundus", "quadratic", "retina", "same-eye"),
    ("auto-fundus", "deformable", "retina", "same-eye"),
    ("auto-brain", "affine", "brain", "clinical"),
    ("auto-brain", "deformable", "brain", "clinical"),
    ("auto-volume", "affine", "brain", "no-brain"),
    ("keymorph-brain", "affine", "brain", "clinical"),
)
READS_AND_WRITES = {  # by stage
    "before the first stage": ("both images", "the same, checked, in one scale"),
    "field of view": ("both pictures", "grey retinas of 768 px; marks that both share"),
    "vessels and features": ("grey retinas", "vessel maps; a refined affine each way"),
    "refinement": ("vessel maps, affine", "quadratic map each way, keypoints"),
    "transform": ("maps in pixels, vessel maps", "transform and way back in the world"),
    "quality": ("both images, transform", "agreement, verdict"),
    "finding the objects": ("both volumes", "masks of the objects; cubic voxels"),
    "searching rotations": ("coarse grids", "the best rotations"),
    "comparing the best rotations": ("coarse grids", "one start each way"),
    "aligning precisely": ("cubic voxels, starts", "affine each way"),
    "placing keypoints": ("affine", "pairs of keypoints"),
    "deforming": ("cubic voxels, affine", "displacement field each way"),
    "keypoints": ("both volumes", "keypoints of the network in each"),
    "second detection": ("both volumes, first map", "keypoints of the network once more"),
    "closed form": ("pairs of keypoints", "transform and way back"),
}
BEFORE = "before the first stage"
SHOWN = 0.005  # share of the time from which a stage has a row
LEAST_ARITHMETIC = 0.02  # share of a stage that its convolutions need at least, to be compared


class Limits(NamedTuple):
    """What one core does at most: multiplications with addition in a second; bytes read."""

    products_per_s: float
    bytes_per_s: float


class Watch:
    """A progress that books processor time to the stage that was announced last."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = defaultdict(float)
        self.own_s: dict[str, float] = defaultdict(float)  # in the thread that asked
        self.products: Counter[str] = Counter()
        self._stage = BEFORE
        self._last = time.process_time(), time.thread_time()

    def __call__(self, stage: str, _fraction: float) -> None:
        now = time.process_time(), time.thread_time()
        self.cpu_s[self._stage] += now[0] - self._last[0]
        self.own_s[self._stage] += now[1] - self._last[1]
        self._stage, self._last = stage, now

    def count(self, products: float) -> None:
        self.products[self._stage] += round(products)


def main() -> None:
    """Measure every pipeline, print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=2, help="of each pipeline")
    parser.add_argument("--models", nargs="+", default=[name for name, *_ in PIPELINES])
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    args = parser.parse_args()
    limits = limits_here()
    parts = [machine(limits)]
    for model, transform, cases, kind in PIPELINES:
        if model in args.models and model in offered_models():
            chosen = [case for case in CASES[cases](args.data) if case.benchmark_set == kind]
            pairs = [case.load() for case in subset(chosen, args.pairs + 1)]
            images = [(pair.fixed, pair.moving) for pair in pairs]
            parts.append(table(model, transform, images, limits))
            print(parts[-1], flush=True)
    if args.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        text = "\n\n".join([BEGIN, *parts, END])
        PAGE.write_text(before + text + after, encoding="utf-8")


def limits_here() -> Limits:
    """Measured on one core: a product of matrices, and the sum of more than any cache holds."""
    square = np.ones((1024, 1024), np.float32)
    long = np.ones(1 << 26, np.float32)
    with_one_thread = torch.from_numpy(square)
    torch.set_num_threads(1)
    multiply = fastest(lambda: with_one_thread @ with_one_thread)
    torch.set_num_threads(os.cpu_count() or 1)
    return Limits(1024**3 / multiply, long.nbytes / fastest(lambda: long.max()))


def fastest(work: Callable[[], object]) -> float:
    """Processor seconds of the fastest of some runs."""
    seconds = []
    for _ in range(7):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    return min(seconds)


def machine(limits: Limits) -> str:
    """What the numbers belong to."""
    return (
        f"Measured on {os.cpu_count()} cores of {platform.machine()}, while other work ran; one "
        f"core does {limits.products_per_s / 1e9:.0f} G multiplications with addition in a second "
        f"and reads {limits.bytes_per_s / 1e9:.1f} GB."
    )


def table(
    model: str, transform: str, pairs: list[tuple[Image, Image]], limits: Limits
) -> str:
    """The table of a pipeline, as Markdown."""
    options = {"transform": transform}
    first, *pairs = pairs  # other images: what a model remembers of some would not be measured
    register(RegistrationRequest(*first, model, options))
    watch = Watch()
    with counting(watch):
        for fixed, moving in pairs:
            watch(BEFORE, 0.0)
            register(RegistrationRequest(fixed, moving, model, options), watch)
            watch(BEFORE, 1.0)
    return "\n".join([
        f"### {model}, {transform}\n",
        "| stage | reads | writes | processor s | share | in other threads | convolutions, G "
        "| times their limit |",
        "|---|---|---|---|---|---|---|---|",
        *rows(watch, len(pairs), limits),
        "",
        reading(pairs, sum(watch.cpu_s.values()) / len(pairs), limits),
    ])


def rows(watch: Watch, pairs: int, limits: Limits) -> Iterator[str]:
    """A line for each stage that matters."""
    total = sum(watch.cpu_s.values())
    for stage, cpu_s in watch.cpu_s.items():
        if cpu_s < SHOWN * total:
            continue
        reads, writes = READS_AND_WRITES.get(stage, ("", ""))
        products = watch.products[stage] / pairs
        limit_s = products / limits.products_per_s
        is_telling = limit_s > LEAST_ARITHMETIC * cpu_s / pairs
        times = f"{cpu_s / pairs / limit_s:.0f}" if is_telling else ""
        others = max(0.0, 1 - watch.own_s[stage] / cpu_s)
        yield (
            f"| {stage} | {reads} | {writes} | {cpu_s / pairs:.2f} | {cpu_s / total:.0%} "
            f"| {others:.0%} | {products / 1e9:.1f} | {times} |"
        )


def reading(pairs: list[tuple[Image, Image]], cpu_s: float, limits: Limits) -> str:
    """How far the whole is from one read of all voxels."""
    nbytes = float(np.mean([fixed.array.nbytes + moving.array.nbytes for fixed, moving in pairs]))
    least = nbytes / limits.bytes_per_s
    return (
        f"Together {cpu_s:.2f} s of the processor; to read all {nbytes / 1e6:.0f} MB of both "
        f"images once takes {1000 * least:.1f} ms, {cpu_s / least:.0f} times less."
    )


@contextmanager
def counting(watch: Watch) -> Iterator[None]:
    """Count the multiplications of convolutions while the block runs."""
    with (
        counted(cv2, "GaussianBlur", watch, _of_blur),
        counted(cv2, "Sobel", watch, lambda result, *_args, **_more: 6 * result.size),
        counted(Convolution, "__call__", watch, _of_matrix),
        counted(torch.nn.functional, "conv2d", watch, _of_torch),
        counted(torch.nn.functional, "conv3d", watch, _of_torch),
    ):
        yield


@contextmanager
def counted(
    owner: Any, name: str, watch: Watch, products: Callable[..., float]
) -> Iterator[None]:
    """Call watch.count with products(result, *arguments) whenever a function is called."""
    function = getattr(owner, name)

    def call(*args: Any, **more: Any) -> Any:
        result = function(*args, **more)
        watch.count(products(result, *args, **more))
        return result

    with patch.object(owner, name, call):
        yield


def _of_blur(result: np.ndarray, *args: Any, **_more: Any) -> float:
    """OpenCV takes 4 deviations to both sides of floats, in rows and then in columns."""
    return 2 * (2 * round(4 * args[2]) + 1) * result.size


def _of_matrix(result: np.ndarray, layer: Convolution, *_args: Any) -> float:
    return float(layer.matrix.shape[1] * result.size)


def _of_torch(
    result: torch.Tensor, _input: Any, weight: torch.Tensor, *_args: Any, **_more: Any
) -> float:
    return float(weight[0].numel() * result.numel())


if __name__ == "__main__":
    main()
