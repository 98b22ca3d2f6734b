"""The scale of the smoothing slider: logarithmic, with its two ends meaning 0 and infinity."""

from __future__ import annotations

import math

from slicer.i18n import tr as _

LEFT, RIGHT = -3.0, 2.0
"""Positions of the slider, which are decimal logarithms; RetReg.ui has the same numbers."""


def smoothing_at(position: float) -> float:
    """The smoothing of splines that a position means, from 0 to infinity."""
    if position <= LEFT:
        return 0.0
    return math.inf if position >= RIGHT else 10.0**position


def position_of(smoothing: float) -> float:
    """The position of a smoothing; the nearest end for what lies beyond them."""
    if smoothing <= 10.0**LEFT:
        return LEFT
    return min(math.log10(smoothing), RIGHT)


def smoothing_text(smoothing: float) -> str:
    """How a smoothing is written beside the slider."""
    if smoothing == 0:
        return _("0 (exact)")
    return _("∞ (affine)") if math.isinf(smoothing) else f"{smoothing:.2g}"
