"""What a registration model is, and what it hands back to the engine.

The contract, for a fixed image F and a moving image M, with x in the fixed world (LPS mm):

    F(x) ≈ M(T(x))    T, Estimate.transform: the structures meet
    B(T(x)) ≈ x       B, Estimate.backward: found from the images, not by inverting T
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, cast, runtime_checkable

import numpy as np

from retreg.image import Image
from retreg.messages import Keypoints, ModelInfo, Scalar
from retreg.progress import Progress, no_progress
from retreg.transforms import Affine, Transform


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a model found.

    transform maps fixed to moving world (LPS mm). backward maps moving to fixed and is estimated
    from the images in the other direction, not by inverting transform: the distance between the
    two is the inverse consistency. None leaves it to the engine to run the model the other way.
    evidence: numbers that only the model knows, such as the inlier ratio. undeformed: the global
    map under a deformation (fixed to moving). Bending can make unlike images look alike, so what
    it rests on is judged as well. seen: what the quality measure of the subject would otherwise
    find out about the two images once more; nothing that depends on the transforms.
    """

    transform: Transform
    fixed_keypoints: Keypoints
    moving_keypoints: Keypoints
    backward: Transform | None = None
    evidence: Mapping[str, float] = field(default_factory=dict)
    undeformed: Transform | None = None
    seen: object = None


def linear_matrix(transform: Transform | None) -> np.ndarray:
    """The matrix (4, 4) LPS mm of a transform that is known to be an affine."""
    return cast(Affine, transform).moving_from_fixed


class Model(Protocol):
    """One way of registering two images. A model is one file and one line in the registry."""

    @property
    def info(self) -> ModelInfo:
        """How clients learn of the model."""
        ...

    def load(self) -> None:
        """Read the weights and make a first pass, before anybody waits for it.

        Nothing happens for a model without a network. Raises FileError when weights cannot be used.
        """
        ...

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], stages: Stages
    ) -> Estimate:
        """Register moving to fixed; options is complete and checked.

        Announces each stage through stages. Raises RegistrationError when nothing can be found,
        and Cancelled through stages.
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
        stages: Stages,
    ) -> tuple[Estimate, ...]:
        """As estimate, once for each of smoothings; each with its backward transform."""
        ...


@runtime_checkable
class SegmentationModel(Model, Protocol):
    """A model that also tells where the vessels of a single picture are."""

    def vessels(self, image: Image) -> Image:
        """How likely each pixel shows a vessel: float32 from 0 to 1, on the pixels of the picture.

        Raises RegistrationError for a blank picture, FileError when weights cannot be used.
        """
        ...


@runtime_checkable
class GuidedModel(Model, Protocol):
    """A model that can look near a given map only."""

    def estimate_near(
        self,
        initial: Affine,
        fixed: Image,
        moving: Image,
        options: Mapping[str, Scalar],
        stages: Stages,
    ) -> Estimate:
        """As estimate, from starts near initial (fixed to moving, LPS mm) and no others.

        Nothing is believed because it was given. Raises RegistrationError as well for a map that
        no two images of the subject can have between them.
        """
        ...


class Stages:
    """The stages of a piece of work: each is announced, timed, and a share of the work.

    Shares are relative to the part in which they are given: what is called inside a part gives
    shares of its own, which add up to about 1, and need not know what happens around it.
    """

    def __init__(self, progress: Progress = no_progress) -> None:
        self._progress = progress
        self._name = ""
        self._start, self._size = 0.0, 1.0  # where this part begins in all work, and its share
        self._done = 0.0  # of this part
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, share: float) -> Iterator[None]:
        """Announce the named stage, a share (0 to 1) of this part of the work, and time it."""
        begun = time.perf_counter()
        with self.part(share):
            self._name = name
            self.at(0.0)
            try:
                yield
            finally:
                taken = time.perf_counter() - begun
                self.seconds[name] = self.seconds.get(name, 0.0) + taken

    @contextmanager
    def part(self, share: float) -> Iterator[None]:
        """What happens inside is a share (0 to 1) of this part of the work."""
        outer = self._name, self._start, self._size, self._done
        self._start += self._size * self._done
        self._size *= share
        self._done = 0.0
        try:
            yield
        finally:
            self._name, self._start, self._size, self._done = outer
            self.skip(share)

    def skip(self, share: float) -> None:
        """A share (0 to 1) of this part of the work is done already."""
        self._done = min(self._done + share, 1.0)

    def at(self, fraction: float) -> None:
        """Report progress inside this part; the place where a long loop can be cancelled."""
        self._progress(self._name, self._start + self._size * fraction)

def affine_estimate(model: Model, fixed: Image, moving: Image, stages: Stages) -> Estimate:
    """What a model makes of two images when asked for an affine, else with its defaults."""
    options = model.info.complete({"transform": "affine"})
    return model.estimate(fixed, moving, options, stages)
