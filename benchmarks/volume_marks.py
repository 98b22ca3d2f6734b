# ruff: noqa: T201 - a script that prints its result
"""Marks and hardware in both volumes of a pair: python benchmarks/volume_marks.py DATA

Burns text into the slices, lays a table below the head, a coil around it, a holder beside it, or
empties slabs, at the same voxels of both volumes of one head, one of them turned. What is accepted
must be right; prints what is not, and what the marks cost.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from retreg.errors import RegistrationError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import RegistrationRequest
from retreg_server.evaluation.bench import scores_of
from retreg_server.evaluation.brain import brain_cases
from retreg_server.evaluation.cases import Case, Pair
from retreg_server.registration.engine import register

SETS = ("contrast", "same-brain")
AROUND = 0.18  # of its shape, that is added on each side of a volume
RIGHT_MM = 2.0
Draw = Callable[[np.ndarray, float], None]  # on the values (k, j, i), at a brightness


def _text(values: np.ndarray, bright: float) -> None:
    """A name in the corner of every slice, and one across the head in every fourth."""
    height, width = values.shape[1:]
    corner, across = (np.zeros((height, width), np.uint8) for _ in range(2))
    style = cv2.FONT_HERSHEY_SIMPLEX, width / 260, 255, max(1, width // 120)
    cv2.putText(corner, "SAMPLE 0815", (2, height // 12), *style)
    cv2.putText(across, "FOR RESEARCH", (width // 8, height // 2), *style)
    values[:, corner > 0] = bright
    values[::4, across > 0] = bright


def _table(values: np.ndarray, bright: float) -> None:
    height, width = values.shape[1:]
    top, thick = round(0.92 * height), max(2, height // 40)
    values[:, top : top + thick, width // 10 : -(width // 10)] = 0.5 * bright


def _coil(values: np.ndarray, bright: float) -> None:
    ring = np.zeros(values.shape[1:], np.uint8)
    height, width = ring.shape
    axes = round(0.47 * width), round(0.47 * height)
    cv2.ellipse(ring, (width // 2, height // 2), axes, 0, 0, 360, 255, max(2, width // 60))
    values[len(values) // 10 :, ring > 0] = 0.4 * bright


def _holder(values: np.ndarray, bright: float) -> None:
    depth, height, width = values.shape
    rows = slice(round(0.3 * depth), round(0.8 * depth)), slice(height // 3, 2 * height // 3)
    for left in (round(0.13 * width), round(0.8 * width)):
        values[rows[0], rows[1], left : left + width // 14] = 0.6 * bright


def _emptied(values: np.ndarray, _: float) -> None:
    """Slabs without data above and below, as padding leaves them."""
    depth = len(values)
    values[: round(0.3 * depth)] = 0
    values[round(0.72 * depth) :] = 0


KINDS: dict[str, Draw] = {
    "text": _text, "table": _table, "coil": _coil, "holder": _holder, "emptied": _emptied,
}


def marked(volume: Image, kind: str) -> Image:
    """The volume on a larger grid, with the marks of that kind."""
    around = [round(AROUND * n) for n in volume.grid.size]
    values = np.pad(
        volume.array[0], [(n, n) for n in reversed(around)], constant_values=volume.array.min()
    ).astype(np.float32)
    matrix = volume.grid.world_from_index.copy()
    matrix[:3, 3] -= matrix[:3, :3] @ around
    KINDS[kind](values, float(np.percentile(values, 99.5)))
    depth, height, width = values.shape
    return Image(values[None], Grid((width, height, depth), matrix))


def outcome(case: Case, pair: Pair) -> tuple[str, float]:
    """Verdict and mean error in mm."""
    try:
        result = register(RegistrationRequest(pair.fixed, pair.moving, "auto-brain", {}))
    except RegistrationError as error:
        return f"none: {error}", float("nan")
    return result.quality.verdict, scores_of(case, pair, result.transform)["error"]


def main() -> None:
    """Print each pair, and how many were accepted, right and wrong, without and with each mark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--each", type=int, default=3, help="every Nth pair only")
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    args = parser.parse_args()
    cases = [case for case in brain_cases(args.data) if case.benchmark_set in SETS][:: args.each]
    counts = {kind: [0, 0, 0] for kind in ("none", *args.kinds)}
    for case in cases:
        pair = case.load()
        for kind in counts:
            shown = pair if kind == "none" else replace(
                pair, fixed=marked(pair.fixed, kind), moving=marked(pair.moving, kind)
            )
            verdict, error = outcome(case, shown)
            counts[kind][2 if verdict != "accept" else 0 if error <= RIGHT_MM else 1] += 1
            print(f"{case.name}, {kind}: {verdict}, {error:.2f} mm", flush=True)
    for kind, (right, wrong, rejected) in counts.items():
        print(f"{kind}: accepted {right} right and {wrong} wrong, {rejected} not accepted")


if __name__ == "__main__":
    main()
