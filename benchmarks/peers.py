# ruff: noqa: T201 - a script that prints its result
"""`auto-fundus` against `fundus-sift`, the usual baseline: python benchmarks/peers.py DATA

Both register the same pairs in turn, each with its verdict, in one process with one thread. Prints
the processor time of each, for each kind of pair the mean over its pairs of the medians of --runs,
and the ratio to fundus-sift. DATA is the folder of test images of `retreg evaluate`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from against import ROOT, answered, servant, tasks_of

KINDS = ("same eye", "multimodal", "different eyes")
PEER = ("fundus-sift", "affine")
CONTESTANTS = (PEER, ("auto-fundus", "quadratic"), ("auto-fundus", "deformable"))
Contestant = tuple[str, str]  # model and transform


def main() -> None:
    """Register in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=3, help="of each pair by each model")
    parser.add_argument("--pairs", type=int, default=4, help="of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    args = parser.parse_args()
    print("| pairs | model | processor s | of fundus-sift | of the same for one eye | verdicts |")
    print("|---|---|---|---|---|---|")
    ours: dict[Contestant, float] = {}
    for kind in args.kinds:
        seconds, verdicts = measured(args.data, kind, args.pairs, args.runs)
        for each in CONTESTANTS:
            ours.setdefault(each, seconds[each])
            told = ", ".join(f"{n} {verdict}" for verdict, n in sorted(verdicts[each].items()))
            print(
                f"| {kind} | {' '.join(each)} | {seconds[each]:.2f} "
                f"| {seconds[each] / seconds[PEER]:.2f} | {seconds[each] / ours[each]:.2f} "
                f"| {told} |",
                flush=True,
            )


def measured(
    data: Path, kind: str, pairs: int, runs: int
) -> tuple[dict[Contestant, float], dict[Contestant, Counter[str]]]:
    """Processor seconds of each, and its verdicts: those of a pair count once."""
    medians: dict[Contestant, list[float]] = defaultdict(list)
    verdicts: dict[Contestant, Counter[str]] = defaultdict(Counter)
    with tempfile.TemporaryDirectory() as folder:
        process = servant(ROOT)
        for task in tasks_of(kind, data, Path(folder), pairs):
            taken: dict[Contestant, list[float]] = defaultdict(list)
            for run in range(runs + 1):
                for each in sorted(CONTESTANTS, reverse=bool(run % 2)):
                    figures = answered(process, (task.fixed, task.moving, *each))
                    if run > 0:  # the first one loads what the others have
                        taken[each].append(float(figures["cpu_s"]))
                    else:
                        verdicts[each][str(figures["verdict"])] += 1
            for each, seconds in taken.items():
                medians[each].append(statistics.median(seconds))
        process.communicate()
    return {each: statistics.fmean(values) for each, values in medians.items()}, verdicts


if __name__ == "__main__":
    main()
