"""Boxes hold all that counts, and little else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retreg_server.registration.volume.field_gauss_newton import boxes_of, grown


@pytest.mark.parametrize("multiple", [1, 2, 3])
def test_every_voxel_with_a_weight_lies_in_exactly_one_box_on_whole_blocks(multiple):
    random = np.random.default_rng(multiple)
    weight = torch.zeros(18, 12, 24)
    for k, j, i in random.integers((0, 0, 0), weight.shape, size=(25, 3)):
        weight[k, j, i] = 0.5
    count = torch.zeros_like(weight)
    for box in boxes_of(weight, multiple):
        count[box] += 1
        assert all(span.start % multiple == 0 and span.stop % multiple == 0 for span in box)
    assert float(count.max()) == 1
    assert bool((count[weight > 0] == 1).all())


def test_a_ball_leaves_out_the_corners_and_the_empty_slices():
    k, j, i = np.indices((40, 40, 40)) - 19.5
    weight = torch.from_numpy(k**2 + j**2 + i**2 < 15**2)
    boxes = boxes_of(weight.float())
    held = sum(int(np.prod([span.stop - span.start for span in box])) for box in boxes)
    assert held < 0.75 * 32**3
    assert min(box[0].start for box in boxes) == 4


def test_what_is_left_over_at_the_end_of_an_axis_is_not_looked_at():
    weight = torch.ones(5, 7, 9)
    boxes = boxes_of(weight, 2)
    assert max(box[0].stop for box in boxes) == 4
    assert all(box[1:] == (slice(0, 6), slice(0, 8)) for box in boxes)


def test_nothing_counts_and_there_is_no_box():
    assert boxes_of(torch.zeros(6, 6, 6)) == []


def test_a_box_grows_by_its_neighbours_but_not_out_of_the_volume():
    wide, inner = grown((slice(0, 4), slice(2, 5), slice(6, 8)), (9, 9, 8))
    assert wide == (slice(0, 5), slice(1, 6), slice(5, 8))
    values = np.random.default_rng(0).normal(size=(9, 9, 8))
    np.testing.assert_array_equal(values[wide][inner], values[0:4, 2:5, 6:8])
