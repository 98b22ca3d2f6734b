"""Grey levels count where both volumes have the same contrast only."""

from __future__ import annotations

import pytest
import torch

from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration.deformation_features import GREY_SHARE, described
from retreg_server.registration.mind import CHANNELS


@pytest.fixture(scope="module")
def a_head() -> torch.Tensor:
    head = make_head_pair(2, spacing_mm=5.0).fixed
    volume = torch.from_numpy(head.grey())[None, None]
    return volume / volume.max()


def test_the_same_contrast_adds_a_channel_and_another_does_not(a_head):
    weight = torch.ones_like(a_head)
    alike = described(a_head, a_head * 0.9, weight)
    inverted = described(a_head, 1 - a_head, weight)
    assert [features.shape[1] for features in alike] == [CHANNELS + 1] * 2
    assert [features.shape[1] for features in inverted] == [CHANNELS] * 2


def test_brightness_and_gain_do_not_change_the_grey_channel(a_head):
    first, second = described(a_head, 0.5 * a_head + 0.2, torch.ones_like(a_head))
    difference = (first[:, -1] - second[:, -1]).abs()
    assert float(difference.median()) < 0.1 * GREY_SHARE


def test_noise_has_no_contrast_in_common(a_head):
    noise = torch.rand(a_head.shape, generator=torch.Generator().manual_seed(1))
    assert described(a_head, noise, torch.ones_like(a_head))[0].shape[1] == CHANNELS
