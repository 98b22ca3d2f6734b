"""ANTs' symmetric normalisation (SyN), as a baseline."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from retreg.image import Image

SEED = 1


def ants_is_installed() -> bool:
    """Whether antspyx can be imported."""
    return find_spec("ants") is not None


def ants_syn(fixed: Image, moving: Image) -> np.ndarray:
    """Displacements (3, k, j, i) in LPS mm on the grid of fixed; the volumes lie roughly right.

    ANTsPy's own defaults for SyN without its linear stages: Mattes mutual information, three
    resolutions with 40, 20 and 0 iterations.
    """
    import ants

    with tempfile.TemporaryDirectory() as folder:
        found = ants.registration(
            ants_image(fixed),
            ants_image(moving),
            type_of_transform="SyNOnly",
            initial_transform="Identity",
            outprefix=str(Path(folder) / "syn"),
            random_seed=SEED,
        )
        warp = next(name for name in found["fwdtransforms"] if name.endswith("Warp.nii.gz"))
        vectors = ants.image_read(warp).numpy()
    return np.asarray(vectors, dtype=np.float64).transpose(3, 2, 1, 0)


def ants_image(image: Image) -> Any:
    """The grey volume as ANTsPy has it."""
    import ants

    grid = image.grid
    return ants.from_numpy(
        np.ascontiguousarray(image.grey().transpose(2, 1, 0)),
        origin=[float(value) for value in grid.world_from_index[:3, 3]],
        spacing=[float(value) for value in grid.spacing],
        direction=np.ascontiguousarray(grid.direction),
    )
