"""Points that are spread as evenly as a set allows (Gonzalez 1985, farthest-first traversal)."""

from __future__ import annotations

import torch


def farthest_points(candidates: torch.Tensor, count: int, first: int) -> list[int]:
    """Indices of at most count of the candidates (n, d), the one with the index first before all.

    Each further one is the farthest from those before it. Distances are in the units of the
    candidates.
    """
    chosen = [first]
    nearest = torch.full((len(candidates),), torch.inf, dtype=candidates.dtype)
    while len(chosen) < min(count, len(candidates)):
        nearest = torch.minimum(nearest, (candidates - candidates[chosen[-1]]).norm(dim=1))
        chosen.append(int(nearest.argmax()))
    return chosen


def spread_out(candidates: torch.Tensor, count: int) -> torch.Tensor:
    """At most count of the candidates (n, d): the middle one, then always the farthest."""
    middle = int((candidates - candidates.mean(dim=0)).norm(dim=1).argmin())
    return candidates[farthest_points(candidates, count, middle)]
