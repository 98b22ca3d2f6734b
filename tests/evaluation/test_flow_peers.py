"""Optical flow as a baseline of the deformable fundus registration."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from retreg.errors import OptionError
from retreg_server.evaluation.flow_peers import (
    Flow,
    dis_flow,
    skimage_is_installed,
    tvl1_flow,
    variational_flow,
    with_flow,
)
from retreg_server.evaluation.peers import is_missing, method_by_name
from retreg_server.phantoms.fundus import make_fundus_pair

FLOWS = [
    dis_flow,
    variational_flow,
    pytest.param(
        tvl1_flow,
        marks=pytest.mark.skipif(not skimage_is_installed(), reason="scikit-image is missing"),
    ),
]


@pytest.mark.parametrize("flow", FLOWS)
def test_a_flow_points_from_the_fixed_picture_to_its_counterpart(flow: Flow):
    noise = np.random.default_rng(1).uniform(0, 1, (120, 140)).astype(np.float32)
    fixed = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 1, cv2.NORM_MINMAX)
    matrix = np.float32([[1, 0, 2.5], [0, 1, -1.5]])
    moving = cv2.warpAffine(fixed, matrix, (140, 120), borderMode=cv2.BORDER_REFLECT)
    found = flow(fixed, moving)[20:-20, 20:-20].reshape(-1, 2)
    np.testing.assert_allclose(np.median(found, axis=0), (2.5, -1.5), atol=0.3)


def test_a_field_is_added_to_the_global_transform_in_the_world():
    """A flow of (3, 0) working pixels is a shift along x, before the global transform."""
    pair = make_fundus_pair(3, size=400, rotation_deg=20, elastic_px=0, moving="colour")
    points = pair.landmarks
    still, shifted = (
        with_flow(lambda a, _, x=x: np.full((*a.shape, 2), (x, 0.0)), pair.fixed, pair.moving)
        for x in (0.0, 3.0)
    )
    assert np.linalg.norm(still(points) - pair.truth(points), axis=1).mean() < 1
    along = shifted.transforms[0](points) - points
    assert (along[:, 0] > 1).all()
    np.testing.assert_allclose(along[:, 1:], 0, atol=1e-9)
    np.testing.assert_allclose(along[:, 0], along[0, 0])
    np.testing.assert_allclose(shifted(points), still(points + along), atol=1e-9)


def test_dense_flow_improves_a_bent_pair():
    pair = make_fundus_pair(3, size=400, rotation_deg=20, elastic_px=3, moving="colour")
    plain = method_by_name("auto-fundus", "quadratic")(pair.fixed, pair.moving)
    dense = method_by_name("dis-flow")(pair.fixed, pair.moving)

    def error(transform) -> float:
        missed = transform(pair.landmarks) - pair.truth(pair.landmarks)
        return float(np.linalg.norm(missed, axis=1).mean())

    assert error(dense.transform) < 0.9 * error(plain.transform)
    assert dense.verdict == ""


def test_a_flow_has_no_families():
    assert not is_missing("dis-flow")
    with pytest.raises(OptionError, match="dis-flow:affine"):
        method_by_name("dis-flow:affine")
