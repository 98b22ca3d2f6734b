"""How good a registration is, in numbers and as a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["accept", "check", "fail"]


@dataclass(frozen=True, eq=False)
class Quality:
    """Measured numbers by name, the verdict, and the sentence that explains it."""

    numbers: Mapping[str, float]
    verdict: Verdict
    reason: str
