"""Where keypoints of a volume lie, and whether they meet."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retreg_server.registration.numerics.spaces import TensorVolume
from retreg_server.registration.volume.landmarks import _smallest_eigenvalue, find_landmarks
from retreg_server.registration.volume.volume_pair import VolumePairLevel


def blobs(shift: int) -> TensorVolume:
    coarse = torch.from_numpy(np.random.default_rng(0).uniform(size=(1, 1, 9, 9, 9))).float()
    fine = torch.nn.functional.interpolate(coarse, (36, 36, 36), mode="trilinear")
    both = torch.cat([fine.roll(shift, dims=4), torch.ones_like(fine)], dim=1)
    return TensorVolume(both, np.diag([18.0, 18.0, 18.0, 1.0]))


@pytest.mark.parametrize(("shift", "agreeing"), [(0, 1.0), (1, 1.0), (3, 0.0)])
def test_keypoints_agree_where_their_surroundings_are_a_voxel_apart_at_most(shift, agreeing):
    marks = find_landmarks(VolumePairLevel(blobs(0), blobs(shift)), np.eye(4))
    assert len(marks.points) > 20
    assert marks.agrees.mean() == pytest.approx(agreeing, abs=0.1)


def test_the_smallest_eigenvalue_is_that_of_the_solver():
    slopes = torch.from_numpy(np.random.default_rng(3).normal(size=(3, 4, 200))).float()
    tensors = torch.einsum("acn,bcn->nab", slopes, slopes)
    tensors[:3] = 0.5 * torch.eye(3)
    entries = [tensors[:, a, b] for a in range(3) for b in range(a, 3)]
    expected = torch.linalg.eigvalsh(tensors)[:, 0]
    torch.testing.assert_close(_smallest_eigenvalue(*entries), expected, atol=2e-3, rtol=1e-3)
