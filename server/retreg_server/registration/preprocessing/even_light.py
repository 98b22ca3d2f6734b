"""Pictures of the retina in even light: how the network of segreg-fundus is shown them."""

from __future__ import annotations

import numpy as np

from retreg_server.registration.preprocessing.vesselness import flattened

FIELD = 512  # pixels on the longer side of the field of view
RANGE = 3.0  # local deviations from the local mean that become 1


def even_light(grey: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(h, w) float32 from -1 to 1: deviation from the local mean; 0 outside the field of view."""
    even: np.ndarray = np.clip(flattened(grey, inside) / RANGE, -1, 1).astype(np.float32)
    return even * inside
