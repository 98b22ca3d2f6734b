"""What every generator hands back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retreg.image import Image
from retreg.transforms import Transform


@dataclass(frozen=True, eq=False)
class PhantomPair:
    """Two views of one made-up anatomy, and the exact transform between them.

    truth maps fixed to moving world points (LPS mm). landmarks: (n, 3) LPS mm in the fixed image,
    at places that both images show. The labels are those of each image on its own grid.
    """

    fixed: Image
    moving: Image
    truth: Transform
    landmarks: np.ndarray
    fixed_labels: Image | None = None
    moving_labels: Image | None = None
