"""Benchmark pairs: what is registered, and what is known about the right answer."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from retreg.errors import FileError
from retreg.image import Image
from retreg.transforms import Affine, Transform

NO_POINTS = np.zeros((0, 3))


@dataclass(frozen=True, eq=False)
class Pair:
    """Two images, and the truth about them.

    moving may be a turned or warped copy of an original picture or volume; original_from_moving
    takes its world back to that of the original, where errors are measured, so that turning and
    scaling change the task but not the ruler. fixed_points, original_points: corresponding (n, 3)
    LPS mm, empty when none are known. error_unit_mm: the length in which errors are reported.
    fixed_labels, original_labels: label maps of the fixed and of the original moving image.
    """

    fixed: Image
    moving: Image
    fixed_points: np.ndarray = field(default_factory=NO_POINTS.copy)
    original_points: np.ndarray = field(default_factory=NO_POINTS.copy)
    original_from_moving: Transform = field(default_factory=Affine.identity)
    error_unit_mm: float = 1.0
    fixed_labels: Image | None = None
    original_labels: Image | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """One pair of a benchmark set; load reads or makes its images when its turn comes.

    right: whether the two belong together; wrong pairs measure the verdict only. angle_deg: the
    known rotation, NaN when there is none. statistic: what sums up the errors of the points.
    """

    benchmark_set: str
    name: str
    load: Callable[[], Pair]
    right: bool = True
    angle_deg: float = float("nan")
    category: str = ""
    statistic: Literal["mean", "median"] = "mean"


def random_for(name: str, seed: int = 0) -> np.random.Generator:
    """A random generator that depends on the name only, so that subsets change no pair."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def subset(cases: Sequence[Case], limit: int | None) -> list[Case]:
    """At most limit of the cases, drawn at random but always the same ones, in their order."""
    if limit is None or len(cases) <= limit:
        return list(cases)
    chosen = random_for("subset").permutation(len(cases))[:limit]
    return [cases[n] for n in sorted(chosen)]


def checked_cases(cases: Sequence[Case], folder: object, expected: str) -> list[Case]:
    """The cases, or FileError when the folder held none."""
    if not cases:
        raise FileError(
            f"{folder} holds no data of this benchmark; give the folder that contains {expected}."
        )
    return list(cases)
