"""The exhaustive search: coverage of SO(3), the score, and separation of candidates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from scipy.stats import entropy

from retreg_server.registration.numerics.spaces import TensorVolume
from retreg_server.registration.volume.rotation_search import (
    BINS,
    Jitter,
    MutualInformationSamples,
    angles_deg,
    climb,
    similarities,
    uniform_rotations,
    well_separated,
)


def a_probe() -> MutualInformationSamples:
    """Points of a smooth asymmetric pattern, looked up in the same pattern, inverted."""
    axis = (np.arange(32) + 0.5) / 16 - 1
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    pattern = np.exp(-4 * (x**2 + 2 * y**2 + 4 * (z - 0.2 * x) ** 2)) + 0.5 * np.exp(
        -9 * ((x - 0.4) ** 2 + (y + 0.3) ** 2 + z**2)
    )
    pattern /= pattern.max()
    world_from_norm = np.diag([80.0, 80.0, 80.0, 1.0])
    target = TensorVolume(torch.from_numpy(1 - pattern)[None, None].float(), world_from_norm)
    index = np.random.default_rng(0).choice(pattern.size, 4000, replace=False)
    bins = torch.from_numpy((pattern.ravel()[index] * (BINS - 1) + 0.5).astype(np.int64))
    return MutualInformationSamples(target.voxel_centres()[index], bins, target)


def test_the_rotations_are_proper_and_leave_no_gap_above_25_degrees():
    rotations = uniform_rotations(1000)
    np.testing.assert_allclose(rotations @ rotations.mT, np.eye(3)[None].repeat(1000, 0), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    others = Rotation.random(200, random_state=np.random.RandomState(0)).as_matrix()
    nearest = [angles_deg(rotations, other).min() for other in others]
    assert max(nearest) < 25


def test_the_score_is_the_normalised_mutual_information_of_the_joint_histogram():
    probe = a_probe()
    score = probe.scores(np.eye(4)[None])[0]
    flat = probe.target.tensor.numpy().ravel()
    index = np.random.default_rng(0).choice(flat.size, 4000, replace=False)
    levels = (flat[index] * (BINS - 1) + 0.5).astype(int)
    joint = np.histogram2d(probe.bins.numpy(), levels, bins=BINS, range=[[0, BINS]] * 2)[0]
    expected = (entropy(joint.sum(0)) + entropy(joint.sum(1))) / entropy(joint.ravel()) - 1
    assert score == pytest.approx(expected, abs=0.02)


def test_a_candidate_that_leaves_the_target_scores_nothing():
    away = np.eye(4)
    away[:3, 3] = 500
    assert a_probe().scores(away[None])[0] == pytest.approx(0, abs=1e-9)


def test_any_turn_of_an_inverted_pattern_is_found():
    probe = a_probe()
    truth = np.eye(4)
    truth[:3, :3] = Rotation.from_rotvec([2.0, -1.5, 0.7]).as_matrix()
    turned = MutualInformationSamples(probe.points @ truth[:3, :3], probe.bins, probe.target)
    rough = similarities(uniform_rotations(1000), np.zeros(3), np.zeros(3))
    best = well_separated(rough, turned.scores(rough), 8, 15.0)
    jitter = Jitter(0.2, 0.03, 3.0, np.zeros(3))
    found, scores = climb(turned, rough[best], jitter, range(7), copies=32)
    winner = found[scores.argmax()]
    assert angles_deg(winner[:3, :3], truth[:3, :3]) < 4
    assert np.linalg.norm(winner[:3, 3]) < 4


def test_climbing_is_repeatable_and_never_loses_ground():
    probe = a_probe()
    start = similarities(uniform_rotations(5), np.zeros(3), np.zeros(3))
    jitter = Jitter(0.2, 0.03, 3.0, np.zeros(3))
    first, scores = climb(probe, start, jitter, range(3), copies=8)
    again, _ = climb(probe, start, jitter, range(3), copies=8)
    np.testing.assert_array_equal(first, again)
    assert (scores >= probe.scores(start)).all()


def test_kept_candidates_are_apart_and_in_order_of_their_score():
    candidates = similarities(uniform_rotations(300), np.zeros(3), np.zeros(3))
    scores = np.random.default_rng(0).random(300)
    kept = well_separated(candidates, scores, 6, 30.0)
    assert (np.diff(scores[kept]) <= 0).all()
    assert kept[0] == scores.argmax()
    for n, index in enumerate(kept):
        assert (angles_deg(candidates[kept[:n], :3, :3], candidates[index, :3, :3]) >= 30).all()
