"""Fixtures of the tests that register images."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import pytest

from retreg_server.registration.brain import auto
from retreg_server.registration.brain.volume_pair import VolumePair
from retreg_server.registration.model import Estimate, Stages


def content(pair: VolumePair) -> bytes:
    """A digest of all that the search for a linear map looks at."""
    digest = sha256()
    for level in pair.levels.values():
        for volume in (level.domain, level.target):
            digest.update(volume.tensor.numpy().tobytes())
            digest.update(volume.world_from_norm.tobytes())
    for seen in (pair.domain, pair.target):
        digest.update(repr((seen.core.tolist(), seen.radius_mm, seen.volume_mm3)).encode())
    return digest.digest()


@pytest.fixture(scope="module")
def equal_heads_are_aligned_once() -> Iterator[None]:
    """Several models start from the linear map that auto-brain finds: equal pairs wait once."""
    found: dict[tuple[bytes, str], Estimate] = {}
    search = auto.linear_estimate

    def remembered(pair: VolumePair, family: str, suggest, stages: Stages) -> Estimate:
        key = content(pair), family
        if key not in found:
            found[key] = search(pair, family, suggest, stages)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "linear_estimate", remembered)
        yield
