"""Registration by hand: a result to begin with when there are no keypoints yet."""

from __future__ import annotations

import numpy as np

from retreg.geometry import Grid
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Affine

LANDMARKS = "landmarks"
"""What stands in the place of a model's name."""


def landmark_result(fixed: Grid, moving: Grid) -> RegistrationResult:
    """No keypoints, and the middles of both images on each other; points that are set decide."""
    shift = np.eye(4)
    shift[:3, 3] = moving.centre - fixed.centre
    nothing = Keypoints(np.zeros((0, 3)), np.zeros(0), np.zeros(0, dtype=bool))
    reason = "Set by hand: nothing was measured on the images; look at it before you use it."
    made = {
        "model": LANDMARKS,
        "options": {"transform": "similarity" if fixed.is_plane else "rigid"},
        "seconds": {},
    }
    return RegistrationResult(Affine(shift), nothing, nothing, Quality({}, "check", reason), made)
