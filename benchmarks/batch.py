# ruff: noqa: T201 - a script that prints its result
"""`retreg batch` against a shell loop of `retreg register`: python benchmarks/batch.py DATA

Both register the same pictures, those of DATA again and again until there are --pairs of them. They
take turns in slices of a few pairs, so that whatever else the machine does meets both alike. Prints
the seconds by the clock and of the processor of both, the ratios, the largest memory of the batch
with all its processes, and whether both came to the same results. DATA is the folder of test images
of `retreg evaluate`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from server import family

COMMAND = [sys.executable, "-m", "retreg.cli"]
PATTERNS = ("same_eye_pairs_unam/*_A.jpg", "multimodal_landmark_pairs/*_fixed.png")
PARTNER = {"_A.jpg": "_B.jpg", "_fixed.png": "_moving.png"}
SAID = ("verdict", "placement", "quality", "keypoints")  # of a result, what must be the same


class Pair(NamedTuple):
    """Two pictures. name: of the folder of their result."""

    name: str
    fixed: Path
    moving: Path


class Taken(NamedTuple):
    """Seconds by the clock, seconds of the processor, largest memory in GB."""

    wall_s: float
    cpu_s: float
    peak_gb: float


def main() -> None:
    """Run both in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--slices", type=int, default=4, help="in which both take turns")
    args = parser.parse_args()
    pairs = pairs_in(args.data / "retina", args.pairs)
    with tempfile.TemporaryDirectory() as folder:
        places = {"loop": Path(folder) / "loop", "batch": Path(folder) / "batch"}
        taken: dict[str, list[Taken]] = {name: [] for name in places}
        for number in range(args.slices):
            for name in sorted(places, reverse=bool(number % 2)):
                part = pairs[number :: args.slices]
                taken[name].append((loop if name == "loop" else batch)(part, places[name]))
        report(taken, differing(pairs, places["loop"], places["batch"]))


def pairs_in(retina: Path, count: int) -> list[Pair]:
    """So many pairs of the folder, repeated as often as necessary."""
    found = []
    for fixed in sorted(path for pattern in PATTERNS for path in retina.glob(pattern)):
        ending = next(each for each in PARTNER if fixed.name.endswith(each))
        found.append((fixed, fixed.with_name(fixed.name.removesuffix(ending) + PARTNER[ending])))
    return [Pair(f"pair-{n:03d}", *found[n % len(found)]) for n in range(count)]


def loop(pairs: Sequence[Pair], out: Path) -> Taken:
    """One `retreg register` after the other."""
    return measured([
        [*COMMAND, "register", str(pair.fixed), str(pair.moving), "-o", str(out / pair.name),
         "--quiet"]
        for pair in pairs
    ])  # fmt: skip


def batch(pairs: Sequence[Pair], out: Path) -> Taken:
    """One `retreg batch`."""
    out.mkdir(parents=True, exist_ok=True)
    table = out / f"{pairs[0].name}.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([Pair._fields, *pairs])
    return measured([[*COMMAND, "batch", str(table), "-o", str(out), "--quiet"]])


def measured(commands: Sequence[Sequence[str]]) -> Taken:
    """What commands take that are run one after the other."""
    peak, begun, before = 0.0, time.perf_counter(), _cpu_s()
    for command in commands:
        with subprocess.Popen(command) as process:
            watch = _Memory(process.pid)
            process.wait()
            peak = max(peak, watch.stop())
    return Taken(time.perf_counter() - begun, _cpu_s() - before, peak / 1e9)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _Memory:
    """The largest memory of a process and its children (Linux): what they share counts once."""

    EVERY_S = 0.2

    def __init__(self, pid: int) -> None:
        self._root, self._peak, self._ends = pid, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ends.wait(self.EVERY_S):
            used = [_proportional_bytes(pid) for pid in family(self._root)]
            self._peak = max(self._peak, sum(used))

    def stop(self) -> float:
        """Bytes."""
        self._ends.set()
        self._thread.join()
        return self._peak


def _proportional_bytes(pid: int) -> float:
    """The memory of a process, and its share of what it has together with others; 0 if it ended."""
    try:
        said = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^Pss:\s+(\d+) kB", said, re.MULTILINE)
    return 1024.0 * int(found.group(1)) if found else 0.0


def differing(pairs: Sequence[Pair], *places: Path) -> list[str]:
    """The names of the pairs whose results say something else."""
    return [pair.name for pair in pairs if len({_said(each / pair.name) for each in places}) > 1]


def _said(folder: Path) -> str:
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return json.dumps({name: result[name] for name in SAID}, sort_keys=True)


def report(taken: dict[str, list[Taken]], different: list[str]) -> None:
    """Totals of both and their ratio."""
    print(f"{os.cpu_count()} cores\n| | loop | batch | batch / loop |\n|---|---|---|---|")
    for figure in ("wall_s", "cpu_s"):
        one, other = (sum(getattr(x, figure) for x in taken[name]) for name in ("loop", "batch"))
        print(f"| {figure} | {one:.1f} | {other:.1f} | {other / one:.2f} |")
    one, other = (max(x.peak_gb for x in taken[name]) for name in ("loop", "batch"))
    print(f"| peak_gb | {one:.2f} | {other:.2f} | {other / one:.2f} |")
    print(f"different results: {', '.join(different) or 'none'}")


if __name__ == "__main__":
    main()
