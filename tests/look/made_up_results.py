"""Folders of results for the page: made-up pairs with a transform that is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retreg.files import write_image
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.head import make_head_pair
from retreg_server.phantoms.pair import PhantomPair
from retreg_server.reporting.result_folder import write_outputs


def write_pair(folder: Path, pair: PhantomPair, suffix: str, fixed: np.ndarray) -> None:
    """Write the result with the true transform and the keypoints fixed (n, 3), 2 mm or px off."""
    noise = np.random.default_rng(1).normal(size=fixed.shape) * pair.fixed.grid.spacing.min()
    moving = pair.truth(fixed) + noise * ([1, 1, 0] if pair.fixed.is_picture else 1)
    sides = (Keypoints(p, np.ones(len(p)), np.ones(len(p), bool)) for p in (fixed, moving))
    numbers = {"agreement": 0.9, "inverse_consistency_p95_mm": 0.3, "overlap": 0.8}
    quality = Quality(numbers, "accept", "90 % of the image finds its counterpart.")
    provenance = {"model": "made-up", "options": {}, "version": "0"}
    result = RegistrationResult(pair.truth, *sides, quality, provenance)
    write_image(folder / f"moving{suffix}", pair.moving)
    write_outputs(folder, pair.fixed, pair.moving, result)


def write_fundus(folder: Path, size: int = 256, count: int = 12) -> None:
    """A fundus pair whose keypoints lie on a lattice, far enough from each other to be dragged."""
    pair = make_fundus_pair(seed=4, size=size, rotation_deg=20.0)
    width, height, _ = pair.fixed.grid.size
    columns = int(np.ceil(np.sqrt(count)))
    n = np.arange(count)
    share = np.stack([n % columns + 0.5, n // columns + 0.5]) / columns
    points = np.stack([(0.2 + 0.6 * share[0]) * width, (0.2 + 0.6 * share[1]) * height, 0 * n])
    write_pair(folder, pair, ".png", points.T.round(3))


def write_head(folder: Path, spacing_mm: float = 2.0) -> None:
    """A head pair."""
    pair = make_head_pair(seed=4, spacing_mm=spacing_mm, rotation_deg=15.0)
    size = np.array(pair.fixed.grid.size)
    share = np.random.default_rng(3).uniform(0.3, 0.7, (10, 3))
    write_pair(folder, pair, ".nrrd", pair.fixed.grid.world(share * size).round(3))
