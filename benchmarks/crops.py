# ruff: noqa: T201 - a script that prints its result
"""Parts of pictures against whole ones, and pictures that overlap by a fifth.

python benchmarks/crops.py DATA [--pairs N] [--wrong N] registers with auto-fundus what
retreg_server/evaluation/crops.py cuts from the pairs of `retreg evaluate retina`, and as much from
pictures of different eyes. Prints, for each kind, how many are right, how many of these are
accepted, how many wrong ones are accepted, and the median processor time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from retreg.errors import RegistrationError
from retreg.messages import RegistrationRequest
from retreg_server.evaluation.cases import Case, subset
from retreg_server.evaluation.crops import part_cases
from retreg_server.evaluation.retina import different_eyes, retina_cases
from retreg_server.registration.engine import register

SETS = ("multimodal", "same-eye", "warped")
RIGHT_PIXELS = 15.0  # of a picture of 1000; the points of two cameras are good to 8


class Outcome(NamedTuple):
    """What became of one pair. error: median in pixels of a whole picture of 1000."""

    error: float
    verdict: str
    seconds: float


def main() -> None:
    """Cut, register, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, help="right ones of each set and kind")
    parser.add_argument("--wrong", type=int, default=10, help="of each set and kind")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    print("| pairs | of | right | accepted right | accepted wrong | seconds |")
    print("|---|---|---|---|---|---|")
    every = retina_cases(args.data)
    for name in SETS:
        members = [case for case in every if case.benchmark_set == name]
        found: dict[str, list[Outcome]] = {}
        for case in part_cases(subset(members, args.pairs), _different(members, args.wrong)):
            found.setdefault(case.benchmark_set, []).append(_registered(case))
        for kind, outcomes in found.items():
            print(_row(f"{name}, {kind}", outcomes), flush=True)


def _different(cases: list[Case], at_most: int) -> list[tuple[Case, Case]]:
    """Pairs of cases that show different eyes, by chance."""
    apart = different_eyes(cases)
    order = np.random.default_rng(0).permutation(len(apart))[:at_most]
    return [apart[n] for n in order]


def _registered(case: Case) -> Outcome:
    """The outcome of auto-fundus; the error is NaN where nothing is found or known."""
    pair, start = case.load(), time.process_time()
    try:
        result = register(RegistrationRequest(pair.fixed, pair.moving, "auto-fundus", {}))
    except RegistrationError:
        return Outcome(float("nan"), "fail", time.process_time() - start)
    seconds, error = time.process_time() - start, float("nan")
    if len(pair.fixed_points):
        mapped = pair.original_from_moving(result.transform(pair.fixed_points))
        error = float(np.median(np.linalg.norm(mapped - pair.original_points, axis=1)))
    return Outcome(error / pair.error_unit_mm, result.quality.verdict, seconds)


def _row(name: str, outcomes: list[Outcome]) -> str:
    right = [each for each in outcomes if each.error <= RIGHT_PIXELS]
    accepted = [each for each in outcomes if each.verdict == "accept"]
    good = sum(each.error <= RIGHT_PIXELS for each in accepted)
    seconds = statistics.median(each.seconds for each in outcomes)
    return (
        f"| {name} | {len(outcomes)} | {len(right)} | {good} | {len(accepted) - good} "
        f"| {seconds:.1f} |"
    )


if __name__ == "__main__":
    main()
