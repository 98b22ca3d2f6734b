"""A sequence of volumes registered to one fixed volume: sequences of transforms and of volumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from retreg.errors import RetRegError
from retreg.messages import RegistrationResult


@dataclass(frozen=True, eq=False)
class SequenceOutcome:
    """What came of a sequence.

    frames: result or error of each volume, in their order. transforms, warped: sequence nodes
    with the index values of the input, without those that failed. verdicts: table node with one
    row for each volume.
    """

    frames: tuple[RegistrationResult | RetRegError, ...]
    transforms: Any
    warped: Any
    verdicts: Any


def register_frames(
    fixed: Any, sequence: Any, register_one: Callable[[Any], RegistrationResult]
) -> SequenceOutcome:
    """Register each data node of a sequence node and make nodes of the results."""
    raise NotImplementedError
