"""How a caller hears of work that goes on, and ends it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with the name of the stage and the fraction done (0 to 1).

It raises Cancelled when the work is no longer wanted; whoever calls it lets that pass through.
"""


def no_progress(_stage: str, _fraction: float) -> None:
    """Progress that tells nobody."""
