# ruff: noqa: T201 - a script that prints its result
"""This checkout against an older one, side by side: python benchmarks/against.py COMMIT DATA

Both register the same images in turn, each in a process of its own, with one thread; COMMIT is
checked out into a temporary folder. Prints, for each kind of pair, the median processor time, wall
time and peak memory of both, and the ratio. DATA is the folder of test images of `retreg evaluate`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from retreg.files import write_image
from retreg_server.evaluation.brain import brain_cases
from retreg_server.evaluation.cases import subset
from retreg_server.evaluation.retina import retina_cases

ROOT = Path(__file__).parents[1]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
FIGURES = ("cpu_s", "wall_s", "peak_gb")
# What both builds run: one line in, a pair of files and a model; one line out, what it took.
SERVANT = """
import json, resource, sys, time
from pathlib import Path
import cv2, torch
cv2.setNumThreads(1), torch.set_num_threads(1)
from retreg.errors import RetRegError
from retreg.files import read_image
from retreg.messages import RegistrationRequest
from retreg_server.registration.engine import register
for line in sys.stdin:
    fixed, moving, model, family = json.loads(line)
    request = RegistrationRequest(*(read_image(Path(p)) for p in (fixed, moving)), model,
                                  {"transform": family})
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        verdict = register(request).quality.verdict
    except RetRegError:
        verdict = "fail"
    print(json.dumps({"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall,
                      "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
                      "verdict": verdict}), flush=True)
"""


CASES = {"retina": retina_cases, "brain": brain_cases}
KINDS = {  # cases, their set, model, transform
    "same eye": ("retina", "same-eye", "auto-fundus", "quadratic"),
    "multimodal": ("retina", "multimodal", "auto-fundus", "quadratic"),
    "different eyes": ("retina", "different-eyes", "auto-fundus", "quadratic"),
    "head": ("brain", "clinical", "auto-brain", "affine"),
    "no head": ("brain", "no-brain", "auto-brain", "affine"),
}
Key = tuple[str, str]  # kind of pair and build
Figures = dict[str, float | str]
Servant = subprocess.Popen[str]


class Task(NamedTuple):
    """A kind of pair, two files, and how they are registered."""

    kind: str
    fixed: Path
    moving: Path
    model: str
    transform: str


def main() -> None:
    """Check out, register in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("commit")
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=7, help="of each pair by each build")
    parser.add_argument("--pairs", type=int, default=4, help="of each kind")
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, checked_out(args.commit, Path(folder)) as old:
        tasks = [task for kind in args.kinds
                 for task in tasks_of(kind, args.data, Path(folder), args.pairs)]
        report(measured(tasks, {"old": old, "new": ROOT}, args.runs))


@contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """The commit in a folder of its own, until the block ends."""
    old = folder / "old"
    subprocess.run(["git", "-C", ROOT, "worktree", "add", "--detach", old, commit], check=True)
    try:
        yield old
    finally:
        subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", old], check=True)


def tasks_of(kind: str, data: Path, folder: Path, at_most: int) -> list[Task]:
    """Pairs of one kind, spread over its set, written to files that any build reads."""
    subject, benchmark_set, model, transform = KINDS[kind]
    cases = [case for case in CASES[subject](data) if case.benchmark_set == benchmark_set]
    tasks = []
    for number, case in enumerate(subset(cases, at_most)):
        pair, files = case.load(), []
        for role in ("fixed", "moving"):
            files.append(folder / f"{benchmark_set}-{number}-{role}.nrrd")
            write_image(files[-1], getattr(pair, role))
        tasks.append(Task(kind, *files, model, transform))
    return tasks


def measured(tasks: list[Task], builds: dict[str, Path], runs: int) -> dict[Key, list[Figures]]:
    """What each task took in each build, run after run, the builds taking turns."""
    found: dict[Key, list[Figures]] = {}
    for task in tasks:
        servants = {name: servant(root) for name, root in builds.items()}
        for run in range(runs + 1):
            for name in sorted(servants, reverse=bool(run % 2)):
                figures = answered(servants[name], task[1:])
                if run > 0:  # the first one loads what the others have
                    found.setdefault((task.kind, name), []).append(figures)
        for each in servants.values():
            each.communicate()
    return found


def servant(root: Path) -> Servant:
    """A process that registers with the code below root."""
    path = os.pathsep.join(str(root / part) for part in ("SlicerRetReg", "server"))
    single = dict.fromkeys(THREADS, "1")
    return subprocess.Popen(
        [sys.executable, "-c", SERVANT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **single, "PYTHONPATH": path},
    )


def answered(servant: Servant, told: Sequence[str | Path]) -> Figures:
    """What the servant took for what it is told; what else it says is left out."""
    assert servant.stdin is not None
    assert servant.stdout is not None
    servant.stdin.write(json.dumps([str(each) for each in told]) + "\n")
    servant.stdin.flush()
    line = next(line for line in servant.stdout if line.startswith("{"))
    figures: Figures = json.loads(line)
    return figures


def report(found: dict[Key, list[Figures]]) -> None:
    """Medians of both builds and their ratio, one line for each kind of pair and figure."""
    print("| pairs | figure | old | new | ratio |\n|---|---|---|---|---|")
    for kind in dict.fromkeys(kind for kind, _ in found):
        for name in FIGURES:
            old, new = (
                statistics.median(float(each[name]) for each in found[kind, build])
                for build in ("old", "new")
            )
            print(f"| {kind} | {name} | {old:.2f} | {new:.2f} | {new / old:.2f} |", flush=True)
        verdicts = {b: [each["verdict"] for each in found[kind, b]] for b in ("old", "new")}
        print(f"| {kind} | accepted | " + " | ".join(
            f"{each.count('accept')}/{len(each)}" for each in verdicts.values()) + " | |")


if __name__ == "__main__":
    main()
