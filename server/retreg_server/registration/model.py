"""What a registration model is, and what it hands back to the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, cast, runtime_checkable

import numpy as np

from retreg.image import Image
from retreg.messages import Keypoints, ModelInfo, Scalar
from retreg.transforms import Affine, Transform
from retreg_server.registration.options import complete_options

Report = Callable[[str, float], None]
"""Called with the name of the stage that begins and the fraction done (0 to 1).

It raises Cancelled when the work is no longer wanted; models let that pass through.
"""


def silent(_stage: str, _fraction: float) -> None:
    """A report that tells nobody."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a model found.

    transform maps fixed to moving world (LPS mm). backward maps moving to fixed and is estimated
    from the images in the other direction, not by inverting transform: the distance between the
    two is the inverse consistency. None leaves it to the engine to run the model the other way.
    evidence: numbers that only the model knows, such as the inlier ratio. undeformed: the global
    map under a deformation (fixed to moving). Bending can make unlike images look alike, so what
    it rests on is judged as well.
    """

    transform: Transform
    fixed_keypoints: Keypoints
    moving_keypoints: Keypoints
    backward: Transform | None = None
    evidence: Mapping[str, float] = field(default_factory=dict)
    undeformed: Transform | None = None


def linear_matrix(transform: Transform | None) -> np.ndarray:
    """The matrix (4, 4) LPS mm of a transform that is known to be an affine."""
    return cast(Affine, transform).moving_from_fixed


class Model(Protocol):
    """One way of registering two images. A model is one file and one line in the registry."""

    @property
    def info(self) -> ModelInfo:
        """How clients learn of the model."""
        ...

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], watch: Stopwatch
    ) -> Estimate:
        """Register moving to fixed; options is complete and checked.

        Announces each stage through watch. Raises RegistrationError when nothing can be found,
        and Cancelled through watch.
        """
        ...


@runtime_checkable
class SweepModel(Model, Protocol):
    """A model that bends more or less at no extra cost: its keypoints stay the same."""

    def sweep(
        self,
        fixed: Image,
        moving: Image,
        options: Mapping[str, Scalar],
        smoothings: Sequence[float],
        watch: Stopwatch,
    ) -> tuple[Estimate, ...]:
        """As estimate, once for each of smoothings; each with its backward transform."""
        ...


class Stopwatch:
    """Announces stages, and keeps the seconds that each of them took."""

    def __init__(self, report: Report = silent) -> None:
        self._report = report
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, fraction: float) -> Iterator[None]:
        """Report that the named stage begins with fraction of all work done, and time it."""
        self._report(name, fraction)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def tick(self, name: str, fraction: float) -> None:
        """Report progress inside a stage; the place where a long loop can be cancelled."""
        self._report(name, fraction)


def affine_estimate(model: Model, fixed: Image, moving: Image, watch: Stopwatch) -> Estimate:
    """What a model makes of two images when asked for an affine, else with its defaults."""
    options = complete_options(model.info, {"transform": "affine"})
    return model.estimate(fixed, moving, options, watch)
