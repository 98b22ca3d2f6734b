# ruff: noqa: T201 - a script that prints its result
"""auto-brain beside elastix or ANTs: python benchmarks/volume_peers.py DATA --elastix PYTHON

Both register the same pairs of heads with cubic voxels in turn, each in a process of its own with
two threads, after one run that is not counted. PYTHON is an interpreter in whose environment
itk-elastix (--elastix: affine, its defaults) or antspyx (--ants: SyN, its defaults, with its own
affine before it, against auto-brain --transform deformable) is installed; retreg needs only NumPy
there. Prints the medians of wall time, processor time and peak memory, and their ratios. DATA is
the folder of test images of `retreg evaluate`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from against import ROOT, Figures, Servant, answered

from retreg_server.evaluation.brain import brain_cases
from retreg_server.evaluation.cases import subset

THREADS = 2
FIGURES = ("wall_s", "cpu_s", "peak_gb")
# What all processes run: one line in, two files; one line out, what it took.
SERVANT = """
import json, resource, sys, time
import numpy as np
from retreg.geometry import Grid
from retreg.image import Image
{method}
for line in sys.stdin:
    images = []
    for name in json.loads(line):
        with np.load(name) as kept:
            size = tuple(int(n) for n in kept["size"])
            images.append(Image(kept["array"], Grid(size, kept["world_from_index"])))
    cpu, wall = time.process_time(), time.perf_counter()
    method(*images)
    print(json.dumps({{"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall,
                       "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}}))
    sys.stdout.flush()
"""
OURS = """
import torch
torch.set_num_threads({threads})
from retreg.messages import RegistrationRequest
from retreg_server.registration.engine import register
def method(fixed, moving):
    register(RegistrationRequest(fixed, moving, "auto-brain", {{"transform": "{family}"}}))
"""
ELASTIX = "from retreg_server.evaluation.elastix import elastix_affine as method"
ANTS = """
import tempfile
import ants
from retreg_server.evaluation.ants_syn import ants_image
def method(fixed, moving):
    with tempfile.TemporaryDirectory() as folder:
        ants.registration(ants_image(fixed), ants_image(moving), type_of_transform="SyN",
                          outprefix=folder + "/syn", random_seed=1)
"""
PEERS = {"elastix": (ELASTIX, "affine"), "ants": (ANTS, "deformable")}


def main() -> None:
    """Write the pairs, run both in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    for name in PEERS:
        parser.add_argument(f"--{name}", metavar="PYTHON", help=f"interpreter that has {name}")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3, help="of each pair by each of both")
    args = parser.parse_args()
    print("| peer | figure | peer | auto-brain | ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        pairs = written_pairs(args.data, Path(folder), args.pairs)
        for name, (method, family) in PEERS.items():
            if python := getattr(args, name):
                ours = OURS.format(threads=THREADS, family=family)
                sides = (python, method), (sys.executable, ours)
                report(name, measured(pairs, *sides, runs=args.runs))


def written_pairs(data: Path, folder: Path, at_most: int) -> list[tuple[str, str]]:
    """Pairs of contrasts and of people, in files that NumPy reads."""
    cases = [case for case in brain_cases(data)
             if case.benchmark_set in ("contrast", "subjects") and "2mm" not in case.name]
    pairs = []
    for number, case in enumerate(subset(cases, at_most)):
        pair, names = case.load(), []
        for role, image in (("fixed", pair.fixed), ("moving", pair.moving)):
            names.append(str(folder / f"{number}-{role}.npz"))
            matrix = image.grid.world_from_index
            np.savez(names[-1], array=image.array, size=image.grid.size, world_from_index=matrix)
        pairs.append((names[0], names[1]))
    return pairs


def measured(
    pairs: list[tuple[str, str]], *sides: tuple[str, str], runs: int = 3
) -> list[list[Figures]]:
    """What both sides, each an interpreter and a method, took for the pairs."""
    servants = [servant(*side) for side in sides]
    found: list[list[Figures]] = [[] for _ in sides]
    for number, pair in enumerate(pair for pair in pairs for _ in range(runs)):
        for side, process in enumerate(servants):
            figures = answered(process, pair)
            if number > 0:  # the first one loads what the others have
                found[side].append(figures)
    for process in servants:
        process.communicate()
    return found


def servant(python: str, method: str) -> Servant:
    """A process that registers by the method."""
    path = os.pathsep.join(str(ROOT / part) for part in ("SlicerRetReg", "server"))
    threads = ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
    environment = {**os.environ, **dict.fromkeys(threads, str(THREADS)), "PYTHONPATH": path}
    return subprocess.Popen(
        [python, "-c", SERVANT.format(method=method)], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )


def report(name: str, found: list[list[Figures]]) -> None:
    """Medians of both and their ratio, one line for each figure."""
    for figure in FIGURES:
        peer, ours = (statistics.median(float(each[figure]) for each in side) for side in found)
        print(f"| {name} | {figure} | {peer:.2f} | {ours:.2f} | {ours / peer:.2f} |", flush=True)


if __name__ == "__main__":
    main()
