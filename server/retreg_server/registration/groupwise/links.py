"""Which images of a group show the same thing: each is registered to one of them, the hub.

The engine of the subject registers; where it is not sure, or does not offer the transform that is
wanted, the keypoints of KeyMorph compete with it, and the images themselves decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast, get_args

import numpy as np

from retreg.errors import RegistrationError
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationRequest, RegistrationResult, Scalar
from retreg.transforms import Transform
from retreg_server.registration.engine import judged, register
from retreg_server.registration.keymorph.model import KeyMorph
from retreg_server.registration.model import Estimate, Model, Stages
from retreg_server.registration.numerics.robust_weights import Linear
from retreg_server.registration.registry import get_model
from retreg_server.registration.subject import SUBJECTS, Subject

VERDICTS = ("fail", "check", "accept")


@dataclass(frozen=True, eq=False)
class Link:
    """Two images registered to each other: the result, and the keypoints that the network sees.

    keypoints: of the fixed and of the moving image; None where the network finds none.
    """

    result: RegistrationResult
    keypoints: tuple[Keypoints, Keypoints] | None

    @property
    def rank(self) -> int:
        """2 for accept, 1 for check, 0 for fail."""
        return VERDICTS.index(self.result.quality.verdict)

    @property
    def agreement(self) -> float:
        """Share of the fixed image that finds its counterpart."""
        return self.result.quality.numbers.get("agreement", 0.0)

    def misses_mm(self, transform: Transform) -> float:
        """Root mean square distance of the keypoints of the network under fixed to moving."""
        if self.keypoints is None:
            return float("nan")
        offsets = transform(self.keypoints[0].points) - self.keypoints[1].points
        return float(np.sqrt((offsets**2).sum(axis=1).mean()))


Links = dict[int, Link]
"""By the number of the moving image; an image that shows nothing has none."""
Triangles = dict[frozenset[int], float]
"""By the numbers of three images: how far two ways between them end apart, as a share of the size
of what they show."""


@dataclass(frozen=True, eq=False)
class Linker:
    """Registers images of a group with the engine of their subject and with keypoints.

    options: of the keypoint model, complete. engine_options: the same for the engine. known: the
    links between two of images, by their numbers; None where nothing was found.
    """

    model: KeyMorph
    options: Mapping[str, Scalar]
    engine: Model
    engine_options: Mapping[str, Scalar]
    images: Sequence[Image]
    known: dict[tuple[int, int], Link | None] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: KeyMorph, given: Mapping[str, Scalar], images: Sequence[Image]
    ) -> Linker:
        """The family defaults to that of the engine. Raises OptionError."""
        engine = get_model(SUBJECTS[model.info.subject].default_model)
        families = engine.info.produces
        family = given.get("transform", families[0])
        rest = {name: value for name, value in given.items() if name != "transform"}
        own = family if family in model.info.produces or family not in families else "affine"
        options = model.info.complete({**rest, "transform": own})
        offered = {option.name for option in engine.info.options}
        wanted = {
            "transform": family if family in families else "affine",
            **({"smoothing": options["smoothing"]} if "smoothing" in offered else {}),
        }
        return cls(model, options, engine, engine.info.complete(wanted), images)

    @property
    def subject(self) -> Subject:
        """What the images show."""
        return SUBJECTS[self.model.info.subject]

    @property
    def described(self) -> dict[str, Scalar]:
        """The options for the record: of the keypoints, the family that was wanted, the engine."""
        return {**self.options, "transform": self.family, "engine": self.engine.info.name}

    @property
    def linear_family(self) -> Linear:
        """The family without bending."""
        return cast(Linear, self.family if self.family in get_args(Linear) else "affine")

    @property
    def family(self) -> str:
        """The transform family of the result."""
        bent = self.options["transform"] == "tps"
        return str((self.options if bent else self.engine_options)["transform"])

    def pair(self, fixed: int, moving: int, stages: Stages) -> Link | None:
        """Of two images of the group; they are registered once."""
        if (fixed, moving) not in self.known:
            found = self.link(self.images[fixed], self.images[moving], stages)
            self.known[fixed, moving] = found
        return self.known[fixed, moving]

    def fails(self, first: int, second: int) -> bool:
        """Whether two images are known not to go together."""
        links = (self.known[k] for k in ((first, second), (second, first)) if k in self.known)
        return any(link is None or link.rank == 0 for link in links)

    def agreement(self, number: int, others: Sequence[int]) -> float:
        """Of an image with the one of others that it was registered to and agrees with most.

        A mean of several contrasts tells less than any of them does. 0 where there is none.
        """
        pairs = [{number, other} for other in others]
        links = (link for pair, link in self.known.items() if {*pair} in pairs)
        return max((link.agreement for link in links if link), default=0.0)

    def link(self, fixed: Image, moving: Image, stages: Stages) -> Link | None:
        """The better result of the two; None when neither finds anything."""
        found = [self._by_engine(fixed, moving, stages)]
        estimate = self._by_keypoints(fixed, moving)
        accepted = found[0] is not None and found[0].quality.verdict == "accept"
        if estimate and not (accepted and self.family == self.engine_options["transform"]):
            request = RegistrationRequest(fixed, moving, self.model.info.name, self.options)
            found.append(judged(self.model.info, request, self.options, estimate, Stages()))
        points = (estimate.fixed_keypoints, estimate.moving_keypoints) if estimate else None
        links = [Link(result, points) for result in found if result]
        return max(links, key=lambda link: (link.rank, link.agreement), default=None)

    def _by_engine(
        self, fixed: Image, moving: Image, stages: Stages
    ) -> RegistrationResult | None:
        request = RegistrationRequest(fixed, moving, self.engine.info.name, self.engine_options)
        try:
            return register(request, lambda _stage, fraction: stages.at(fraction))
        except RegistrationError:
            return None

    def _by_keypoints(self, fixed: Image, moving: Image) -> Estimate | None:
        try:
            return self.model.estimate(fixed, moving, self.options, Stages())
        except RegistrationError:
            return None


@dataclass(frozen=True, eq=False)
class Star:
    """hub: number of the image that most others fit. links: from it to those that do."""

    hub: int
    links: Links

    @property
    def members(self) -> list[int]:
        """The numbers of the images that show the same thing, in their order."""
        return sorted([self.hub, *self.links])

    @property
    def keypoints(self) -> Keypoints:
        """In the hub: those of the network, or else those of the engine."""
        links = [self.links[number] for number in sorted(self.links)]
        seen = [link.keypoints[0] for link in links if link.keypoints]
        return (seen or [links[0].result.fixed_keypoints])[0]

    def misses_mm(self, number: int) -> float:
        """How far the keypoints of the network miss those of the hub; of the hub: their mean."""
        asked = [self.links[number]] if number in self.links else self.links.values()
        return float(np.mean([link.misses_mm(link.result.transform) for link in asked]))

    @property
    def worth(self) -> tuple[int, int]:
        """How many images it holds that are accepted, and how many at all."""
        return sum(link.rank == 2 for link in self.links.values()), len(self.links)


def find_star(linker: Linker, candidates: Sequence[int], stages: Stages) -> Star:
    """Of the first candidate that more than half of all are accepted with, or else the best one.

    Images that are to be checked belong to it only where none is accepted. Raises
    RegistrationError when no two go together.
    """
    best = Star(candidates[0], {})
    for hub in candidates:
        first = hub == candidates[0]
        with stages.stage("registration", 0.6 if first else 0.4 / (len(candidates) - 1)):
            best = max(best, _star(linker, candidates, hub, stages), key=lambda star: star.worth)
        if 2 * (best.worth[0] + 1) > len(candidates):
            break
    if not best.links:
        raise RegistrationError(
            "No two of the images show the same thing, so they have no mean; check that all are "
            "of one eye or of one head."
        )
    accepted = {number: link for number, link in best.links.items() if link.rank == 2}
    return Star(best.hub, accepted or best.links)


def _star(linker: Linker, candidates: Sequence[int], hub: int, stages: Stages) -> Star:
    """What does not fail with the hub; pairs that have failed are not tried again."""
    links: Links = {}
    others = [n for n in candidates if n != hub and not linker.fails(n, hub)]
    for number in others:
        with stages.part(1 / len(others)):
            link = linker.pair(hub, number, stages)
        if link is not None and link.rank > 0:
            links[number] = link
    return Star(hub, links)


def triangle_errors(linker: Linker, star: Star, stages: Stages) -> Triangles:
    """How far apart two ways from the hub to an image end, directly and by another image.

    For the triangles of the hub and two members that follow each other, where these two are
    accepted with each other.
    """
    errors: Triangles = {}
    around = [number for number in star.members if number != star.hub]
    for first, second in pairwise(around):
        with stages.part(1 / (len(around) - 1)):
            direct = linker.pair(first, second, stages)
        if direct is None or direct.rank < 2:
            continue
        error = triangle_error(linker.images, star, (first, second), direct.result.transform)
        errors[frozenset({star.hub, first, second})] = error
    return errors


def triangle_error(
    images: Sequence[Image], star: Star, pair: tuple[int, int], direct: Transform
) -> float:
    """The 95th percentile, as a share of the size of what the images show.

    Measured at the control points in the hub that both images of the pair show.
    """
    results = [star.links[number].result for number in pair]
    points = np.concatenate([result.fixed_keypoints.points for result in results])
    places = [result.transform(points) for result in results]
    seen = np.logical_and(
        *(images[n].grid.contains(there) for n, there in zip(pair, places, strict=True))
    )
    if not seen.any():
        return np.inf
    first, second = (there[seen] for there in places)
    missed = np.linalg.norm(direct(first) - second, axis=1)
    return float(np.percentile(missed, 95) / np.linalg.norm(np.ptp(second, axis=0)))
