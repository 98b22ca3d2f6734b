"""What the demonstration registers, and how far a result is from the known truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retreg.messages import RegistrationResult
from retreg.transforms import Affine, Transform
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.head import make_head_pair
from retreg_server.phantoms.pair import PhantomPair


@dataclass(frozen=True)
class Case:
    """One pair of the demonstration.

    name: folder of its results. unit: what a world millimetre is for a reader. suffix: file type
    of the images. limit: largest mean error of a right result, in that unit.
    """

    name: str
    title: str
    story: str
    model: str
    unit: str
    suffix: str
    limit: float
    make: Callable[[], PhantomPair]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a case: errors are means over the landmarks in the unit of the case."""

    case: Case
    pair: PhantomPair
    result: RegistrationResult
    seconds: float

    @property
    def error_before(self) -> float:
        return mean_error(self.pair, Affine.identity())

    @property
    def error_after(self) -> float:
        return mean_error(self.pair, self.result.transform)

    @property
    def is_right(self) -> bool:
        """Whether the error is within the limit; a NaN is not."""
        return self.error_after <= self.case.limit


CASES = (
    Case(
        name="fundus",
        title="Fundus: colour and fluorescein angiography",
        story="One eye, photographed in colour and, turned by 60° and bent, with dye in its blood.",
        model="auto-fundus",
        unit="px",
        suffix=".png",
        limit=2.0,
        make=lambda: make_fundus_pair(seed=4, rotation_deg=60.0, scale=1.08, elastic_px=1.0),
    ),
    Case(
        name="brain",
        title="Brain: T1-weighted and T2-weighted MRI",
        story="One head, scanned twice with different contrast and turned by 100° in between.",
        model="auto-brain",
        unit="mm",
        suffix=".nrrd",
        limit=2.0,
        make=lambda: make_head_pair(seed=4, rotation_deg=100.0),
    ),
)


def mean_error(pair: PhantomPair, transform: Transform) -> float:
    """Mean distance in mm between where transform and truth take the landmarks."""
    distance = transform(pair.landmarks) - pair.truth(pair.landmarks)
    return float(np.linalg.norm(distance, axis=1).mean())
