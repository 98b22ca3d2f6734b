"""Several results side by side: one of them moves the image and is seen, the others wait."""

from __future__ import annotations

from collections.abc import Iterable

from RetRegLib.scene.outcome import Outcome
from RetRegLib.scene.slice_views import show_deformation


def choose_outcome(chosen: Outcome, others: Iterable[Outcome]) -> None:
    """Let one result move what was registered, and hide the keypoints and arrows of the others."""
    if chosen.caretaker is not None:
        chosen.caretaker.place()
    for other in others:
        if other is chosen or other.fixed.GetScene() is None:
            continue
        for node in (other.fixed_keypoints, other.moving_keypoints, other.lines):
            if node.GetScene() is not None:
                node.SetDisplayVisibility(False)
        if other.transform.GetDisplayNode() is not None:
            show_deformation(other.transform, other.fixed, None)
