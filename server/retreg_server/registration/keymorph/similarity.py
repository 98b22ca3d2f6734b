"""How alike two images are at the same places: what decides between the views of a network.

Normalised mutual information (H(a) + H(b)) / H(a, b) for any two contrasts (Studholme et al. 1999),
and Pearson's correlation for vessel maps, which look alike in every modality.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from retreg.quality import normalised_mutual_information

Similarity = Callable[[np.ndarray, np.ndarray], float]
"""Of the values (n,) from 0 to 1 of the fixed image and of the moving one at the same places: more
is better."""
SHOWN = 0.05


def mutual_information(fixed: np.ndarray, warped: np.ndarray) -> float:
    """Normalised mutual information where either image shows something; for any two contrasts."""
    shown = (fixed > SHOWN) | (warped > SHOWN)
    value = normalised_mutual_information(fixed[shown][::3], warped[shown][::3])
    return value if np.isfinite(value) else -np.inf


def correlation(fixed: np.ndarray, warped: np.ndarray) -> float:
    """Of vessel maps."""
    if min(fixed.std(), warped.std()) < 1e-9:
        return -np.inf
    return float(np.corrcoef(fixed, warped)[0, 1])
