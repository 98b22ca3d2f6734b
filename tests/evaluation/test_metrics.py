"""The measures against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from retreg.transforms import Affine
from retreg_server.evaluation.metrics import (
    area_under_curve,
    dice_by_label,
    fire_class_of,
    landmark_distances,
    mean_dice,
    rate,
    reference_pixel,
    success_curve,
)


def test_landmark_distances_are_those_of_a_right_triangle():
    moved = np.eye(4)
    moved[:3, 3] = (3, 4, 0)
    points = np.array([[0.0, 0, 0], [10, 20, 30]])
    targets = np.array([[0.0, 0, 0], [13, 24, 42]])
    assert landmark_distances(Affine(moved), points, targets) == pytest.approx([5, 12])


def test_mean_distance_to_a_half_turn_is_twice_the_distance_from_the_axis():
    truth = Affine(np.diag([-1.0, -1, 1, 1]))
    points = np.array([[10.0, 0, 5], [0, 30, -5], [6, 8, 0]])
    distances = landmark_distances(Affine.identity(), points, truth(points))
    assert distances.mean() == pytest.approx((20 + 60 + 20) / 3)


def test_four_pixels_of_a_500_pixel_picture_count_as_eight():
    assert 4 / reference_pixel(500, 300) == pytest.approx(8)


def test_success_is_strictly_below_the_threshold_and_nan_never_succeeds():
    curve = success_curve([1.0, 2.5, float("nan"), 9.0], [1, 2, 3, 10])
    assert curve == pytest.approx([0, 0.25, 0.5, 0.75])


def test_area_under_curve_of_one_pair_counts_the_thresholds_above_its_error():
    # thresholds 3 ... 25 lie above 2.5: 23 of 25
    assert area_under_curve([2.5]) == pytest.approx(23 / 25)


def test_area_under_curve_of_two_pairs_is_the_mean_of_both():
    # 4.2 px passes 5 ... 15 (11 of 15), 14.9 px passes 15 only
    assert area_under_curve([4.2, 14.9], 15) == pytest.approx((11 / 15 + 1 / 15) / 2)


def test_area_under_curve_of_a_failed_pair_is_zero():
    assert area_under_curve([float("inf"), float("nan")], 50) == 0


@pytest.mark.parametrize(
    ("median", "largest", "expected"),
    [
        (float("nan"), float("nan"), "failed"),
        (3, 51, "inaccurate"),
        (21, 40, "inaccurate"),
        (20, 50, "acceptable"),
    ],
)
def test_fire_classes(median, largest, expected):
    assert fire_class_of(median, largest) == expected


def test_dice_of_each_label_is_twice_the_overlap_over_the_sum():
    first = np.array([[1, 1, 1, 0], [2, 2, 0, 3]])
    second = np.array([[1, 1, 0, 0], [2, 0, 0, 4]])
    assert dice_by_label(first, second) == pytest.approx({1: 2 * 2 / 5, 2: 2 * 1 / 3})


def test_mean_dice_counts_a_lost_label_as_zero():
    first, second = np.array([1, 1, 2, 2]), np.array([1, 1, 0, 0])
    assert mean_dice(first, second, [1, 2]) == pytest.approx(0.5)


def test_labels_stored_as_floats_are_compared_as_whole_numbers():
    labels = np.array([[207.0, 0.0]])
    assert dice_by_label(labels, labels) == {207: 1.0}


def test_rate_of_nothing_is_nan():
    assert np.isnan(rate([]))
    assert rate([True, False, False, False]) == 0.25
