"""KeyMorph's maps for models that ask for them only when in doubt."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from retreg.image import Image
from retreg_server.registration.robust_fit import Linear

Maps = list[np.ndarray]
Suggest = Callable[[], tuple[Maps, Maps]]
"""Further matrices (4, 4) from the fixed to the moving world, and back."""


def suggestions(fixed: Image, moving: Image, family: Linear = "affine") -> tuple[Maps, Maps]:
    """What KeyMorph finds from the fixed to the moving world and, in a look of its own, back.

    Empty without weights or where KeyMorph sees nothing.
    """
    # Most registrations settle without it, and loading the network takes seconds.
    from retreg_server.registration.keymorph_candidates import keymorph_candidates

    return (
        keymorph_candidates(fixed, moving, family),
        keymorph_candidates(moving, fixed, family, again=True),
    )
