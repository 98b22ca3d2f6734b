"""Which views overlap: quick matches say where to look, the engine and its verdict decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from retreg.errors import EmptyImageError, RegistrationError
from retreg.image import Image
from retreg.messages import RegistrationRequest, RegistrationResult
from retreg_server.registration import engine
from retreg_server.registration.fundus.quick_matches import QuickMatcher
from retreg_server.registration.model import Stages

MODEL = "auto-fundus"
LIKELY = 12  # matches that agree; pairs that were accepted had 13 or more, other eyes reach 14
PARTNERS = 4  # with the best of which each view is registered
TRIES = 4  # of a group of views that nothing joins to the others, at the full search
Numbers = tuple[int, int]  # of the fixed and of the moving view


@dataclass(frozen=True, eq=False)
class Pair:
    """Two views that were registered. result: None where nothing was found; reason says why."""

    fixed: int
    moving: int
    result: RegistrationResult | None
    reason: str

    @property
    def views(self) -> Numbers:
        return self.fixed, self.moving

    def beside(self, number: int) -> int:
        """The other one of the two views."""
        return self.moving if number == self.fixed else self.fixed

    @property
    def verdict(self) -> str:
        return self.result.quality.verdict if self.result else "fail"

    @property
    def is_accepted(self) -> bool:
        return self.verdict == "accept"

    @property
    def agreement(self) -> float:
        """Share of the fixed view that finds its counterpart; 0 where nothing was found."""
        return self.result.quality.numbers.get("agreement", 0.0) if self.result else 0.0


@dataclass
class PairFinder:
    """Registers pairs of views, those first whose features agree most.

    agreeing: how many matches agree, by the numbers of two views, the smaller one first.
    """

    images: Sequence[Image]
    agreeing: Mapping[Numbers, int]
    stages: Stages
    pairs: dict[Numbers, Pair] = field(default_factory=dict)

    def find(self) -> list[Pair]:
        """The pairs that are likely, and as many others as it takes to join all, or to give up."""
        likely = self._likely()
        with self.stages.stage("registering overlaps", 0.7):
            for number, numbers in enumerate(likely):
                self._register(numbers, number / len(likely), 1 / len(likely))
        with self.stages.stage("looking for more", 0.3):
            self._join()
        return list(self.pairs.values())

    def _likely(self) -> list[Numbers]:
        """Pairs whose matches agree well, the best first, as long as a view needs a partner."""
        count: dict[int, int] = {}
        chosen = []
        for numbers in self._by_agreement(self.agreeing):
            few = min(count.get(n, 0) for n in numbers) < PARTNERS
            if self.agreeing[numbers] >= LIKELY and few:
                chosen.append(numbers)
                count.update({n: count.get(n, 0) + 1 for n in numbers})
        return chosen

    def _join(self) -> None:
        """Try the best pairs between groups of views that are not joined yet."""
        tries = dict.fromkeys(range(len(self.images)), 0)
        while True:
            group = groups(len(self.images), list(self.pairs.values()))
            open_ = [
                (i, j)
                for i, j in self.agreeing
                if group[i] != group[j] and (i, j) not in self.pairs
                and min(tries[group[i]], tries[group[j]]) < TRIES
            ]  # fmt: skip
            if not open_:
                return
            first, second = self._by_agreement(open_)[0]
            done, most = sum(tries.values()), 2 * TRIES * len(self.images)
            self._register((first, second), done / most, 2 / most)
            tries[group[first]] += 1
            tries[group[second]] += 1

    def _by_agreement(self, numbers: Sequence[Numbers] | Mapping[Numbers, int]) -> list[Numbers]:
        return sorted(numbers, key=lambda each: -self.agreeing[each])

    def _register(self, numbers: Numbers, start: float, share: float) -> None:
        """Register two views, from start on for a share of the stage."""
        fixed, moving = numbers
        request = RegistrationRequest(self.images[fixed], self.images[moving], MODEL)
        try:
            result = engine.register(request, lambda _, done: self.stages.at(start + share * done))
        except RegistrationError as error:
            self.pairs[numbers] = Pair(fixed, moving, None, str(error))
        else:
            self.pairs[numbers] = Pair(fixed, moving, result, result.quality.reason)


def agreeing_matches(
    images: Sequence[Image], stages: Stages
) -> tuple[dict[Numbers, int], dict[int, str]]:
    """How many matches of each two views agree, and what is wrong with views that are blank."""
    matchers, blank = dict[int, QuickMatcher](), dict[int, str]()
    for number, image in enumerate(images):
        stages.at(0.3 * number / len(images))
        try:
            matchers[number] = QuickMatcher.of(image)
        except EmptyImageError as error:
            blank[number] = str(error)
    found, every = dict[Numbers, int](), list(combinations(matchers, 2))
    for done, (i, j) in enumerate(every):
        stages.at(0.3 + 0.7 * done / len(every))
        found[i, j] = matchers[i].agreeing(matchers[j])
    return found, blank


def groups(count: int, pairs: Sequence[Pair]) -> np.ndarray:
    """(count,) int: the smallest number of a view to which accepted pairs join each view."""
    group = np.arange(count)
    for pair in pairs:
        if pair.is_accepted:
            low, high = sorted((group[pair.fixed], group[pair.moving]))
            group[group == high] = low
    return group
