"""What each part of the deformable models buys: python benchmarks/deformable_parts.py DATA

Registers the same pairs with the global stage only, with the network on top of it, with the
refinement instead of it, with both, and with a network whose smoothing layer is left out, and
prints a table per set of pairs. DATA is the folder of test images of `retreg evaluate`.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from copy import copy
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np

from retreg.image import Image
from retreg.messages import RegistrationRequest, Scalar
from retreg_server.evaluation import retina
from retreg_server.evaluation.bench import run_cases
from retreg_server.evaluation.brain_deformable import deformable_cases
from retreg_server.evaluation.cases import Case, Pair
from retreg_server.evaluation.peers import Answer, Method
from retreg_server.registration.engine import register
from retreg_server.registration.model import Model, Stages
from retreg_server.registration.networks.field_net import field_net_from_dict
from retreg_server.registration.networks.weights import is_shipped, load_network
from retreg_server.registration.registry import get_model

LARGE_WARP = 15.0  # pixels of a picture of 1000
NETWORKS = {
    "fundus": ("smoothproper-fundus",),
    "brain": ("smoothproper-brain", "voxelmorph-brain"),
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--kind", choices=tuple(NETWORKS), default="fundus")
    parser.add_argument("--pairs", type=int, default=8, help="at most so many of each set")
    args = parser.parse_args()
    sets = _pictures if args.kind == "fundus" else _volumes
    for name, cases in sets(args.data, args.pairs).items():
        _print_table(name, cases, _methods(args.kind))


def _pictures(data: Path, pairs: int) -> dict[str, list[Case]]:
    cases = retina.retina_cases(data, pairs)
    found = {
        name: [case for case in cases if case.benchmark_set == name]
        for name in ("warped", "multimodal")
    }
    return found | {f"warped by {LARGE_WARP:g}": [_warped_further(c) for c in found["warped"]]}


def _warped_further(case: Case) -> Case:
    """The same picture under a larger warp."""

    def load() -> Pair:
        usual, retina.WARP_PIXELS = retina.WARP_PIXELS, LARGE_WARP
        try:
            return case.load()
        finally:
            retina.WARP_PIXELS = usual

    return Case(f"warped by {LARGE_WARP:g}", case.name, load, statistic=case.statistic)


def _volumes(data: Path, pairs: int) -> dict[str, list[Case]]:
    cases = deformable_cases(data, pairs)
    return {
        name: [case for case in cases if case.benchmark_set == name]
        for name in ("people", "warped")
    }


def _methods(kind: str) -> dict[str, Method]:
    auto = f"auto-{kind}"
    methods: dict[str, Method] = {
        "global only": _of_model(auto, transform="quadratic" if kind == "fundus" else "affine"),
        "refinement": _of_model(auto, transform="deformable"),
    }
    for name in filter(is_shipped, NETWORKS[kind]):
        methods[name] = _of_model(name, refine=False)
        if name.startswith("smoothproper"):
            methods[f"{name} without its layer"] = partial(_network_alone, _without_layer(name))
        methods[f"{name} + refinement"] = _of_model(name)
    return methods


def _of_model(name: str, **options: Scalar) -> Method:
    def run(fixed: Image, moving: Image) -> Answer:
        return Answer(register(RegistrationRequest(fixed, moving, name, options)).transform)

    return run


def _without_layer(name: str) -> Model:
    """The model with the same weights and no step of its smoothing layer."""
    net = load_network(name, field_net_from_dict)[0]
    bare = field_net_from_dict({**net.architecture.as_dict(), "steps": 0})
    bare.load_state_dict(net.state_dict())
    model = copy(get_model(name))
    vars(model)["net"] = bare.eval()  # where the cached property looks first
    return model


def _network_alone(model: Model, fixed: Image, moving: Image) -> Answer:
    options = model.info.complete({"refine": False})
    return Answer(model.estimate(fixed, moving, options, Stages()).transform)


def _print_table(name: str, cases: list[Case], methods: dict[str, Method]) -> None:
    """Errors in pixels of 1000 or mm, or Dice where labels are known; processor seconds."""
    values: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for finished in run_cases(cases, methods):
        row = finished.row
        value = row.error if np.isnan(row.dice) else row.dice
        values[row.model].append((value, row.cpu_seconds))
        _say(sys.stderr, f"{name}: {row.pair}, {row.model}: {value:.3f} {row.message}")
    _say(sys.stdout, f"\n{name}, {len(cases)} pairs\n")
    _say(sys.stdout, "| | mean | median | from, to | processor seconds |\n|---|---|---|---|---|")
    for label, numbers in values.items():
        found, seconds = np.array(numbers).T
        low, high = np.nanmin(found), np.nanmax(found)
        _say(
            sys.stdout,
            f"| {label} | {np.nanmean(found):.3f} | {np.nanmedian(found):.3f} "
            f"| {low:.3f} to {high:.3f} | {np.mean(seconds):.1f} |",
        )


def _say(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")
    stream.flush()


if __name__ == "__main__":
    main()
