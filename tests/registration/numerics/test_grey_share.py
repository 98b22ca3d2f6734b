"""Grey levels count where both volumes have the same contrast only."""

from __future__ import annotations

import pytest
import torch

from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration.numerics.volume_features import (
    CHANNELS,
    GREY_SHARE,
    described,
    grey_share,
    local_mean,
    locally_normalised,
)


@pytest.fixture(scope="module")
def a_head() -> torch.Tensor:
    head = make_head_pair(2, spacing_mm=5.0).fixed
    volume = torch.from_numpy(head.grey())[None, None]
    return volume / volume.max()


def test_grey_levels_count_between_equal_contrasts_only(a_head):
    weight = torch.ones_like(a_head)
    noise = torch.rand(a_head.shape, generator=torch.Generator().manual_seed(1))
    assert grey_share(a_head, a_head * 0.9, weight) == pytest.approx(GREY_SHARE)
    assert grey_share(a_head, 1 - a_head, weight) == 0
    assert grey_share(a_head, noise, weight) == 0
    assert grey_share(a_head, a_head, torch.zeros_like(a_head)) == 0


def test_they_are_one_more_channel(a_head):
    assert described(a_head, 0.0).shape[1] == CHANNELS
    features = described(a_head, 2.0)
    assert features.shape[1] == CHANNELS + 1
    torch.testing.assert_close(features[:, -1:], 2 * locally_normalised(a_head))


def test_brightness_and_gain_hardly_change_them(a_head):
    first, second = (locally_normalised(volume) for volume in (a_head, 0.5 * a_head + 0.2))
    assert float((first - second).abs().median()) < 0.1


def test_local_normalisation_gives_mean_0_and_deviation_1():
    random = torch.Generator().manual_seed(2)
    volume = 5 + 3 * torch.randn(1, 1, 24, 24, 24, generator=random)
    inner = locally_normalised(volume)[..., 4:-4, 4:-4, 4:-4]
    assert float(inner.mean()) == pytest.approx(0, abs=0.05)
    assert float(inner.std()) == pytest.approx(1, abs=0.05)
    assert not locally_normalised(torch.full((1, 1, 9, 9, 9), 7.0)).any()


@pytest.mark.parametrize(("voxels", "reach"), [(1, 0), (2, 0), (3, 1), (6, 2), (7, 3), (9, 3)])
def test_the_local_mean_is_taken_in_volumes_of_any_thickness(voxels: int, reach: int) -> None:
    values = torch.rand((1, 1, voxels, 10, 10), generator=torch.Generator().manual_seed(0))
    middle = voxels // 2
    expected = values[0, 0, middle - reach : middle + reach + 1, 1:8, 1:8].mean()
    torch.testing.assert_close(local_mean(values, 7)[0, 0, middle, 4, 4], expected)
