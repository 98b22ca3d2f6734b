"""Tiles of vessels that find themselves, and what need not be looked at."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from retreg_server.registration.preprocessing import tile_agreement as module
from retreg_server.registration.preprocessing.tile_agreement import tile_agreement

SIZE = 300
BOTH = np.ones((SIZE, SIZE), bool)


def texture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).random((SIZE, SIZE)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return (smooth - smooth.min()) / np.ptp(smooth)


def half_alike(seed: int) -> np.ndarray:
    mixed = texture(seed)
    mixed[:, SIZE // 2 :] = texture(seed + 100)[:, SIZE // 2 :]
    return mixed


@pytest.fixture
def looks(monkeypatch):
    """How many tiles were looked for."""
    made, look = [], module._best_place
    monkeypatch.setattr(module, "_best_place", lambda *args: made.append(1) or look(*args))
    return made


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_picture_agrees_with_itself_in_all_tiles_and_with_another_one_in_few(seed):
    assert tile_agreement(texture(seed), texture(seed), BOTH)[0] == 1
    assert tile_agreement(texture(seed), texture(seed + 10), BOTH)[0] < 0.3
    assert 0.3 < tile_agreement(texture(seed), half_alike(seed), BOTH)[0] < 0.8


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_cannot_reach_the_share_of_interest_is_left_early(looks, seed):
    agreement, tiles = tile_agreement(texture(seed), half_alike(seed), BOTH)
    assert len(looks) == tiles
    assert tile_agreement(texture(seed), half_alike(seed), BOTH, None, agreement) == (
        agreement, tiles,
    )  # fmt: skip
    looks.clear()
    assert tile_agreement(texture(seed), half_alike(seed), BOTH, None, 0.95) == (0, 0)
    assert len(looks) < tiles / 2


@pytest.mark.parametrize("enough", [0.2, 0.5])
def test_a_share_that_is_enough_is_told_as_soon_as_it_is_reached(looks, enough):
    found, tiles = tile_agreement(texture(4), texture(4), BOTH, enough=enough)
    assert enough <= found < enough + 0.1
    assert len(looks) < (enough + 0.1) * tiles


@pytest.mark.parametrize("shape", [(40, 300), (300, 20), (90, 300), (100, 100)])
def test_narrow_pictures_hold_few_tiles_or_none(shape):
    vessels = texture(1)[: shape[0], : shape[1]]
    found, tiles = tile_agreement(vessels, vessels, np.ones(shape, bool))
    assert found == float(tiles > 0)
    assert (tiles > 0) == (min(shape) > 2 * module.REACH + module.TILE)
