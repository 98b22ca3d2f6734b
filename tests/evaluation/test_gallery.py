"""Checkerboards show both images in the right places."""

from __future__ import annotations

import numpy as np
import PIL.Image

from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Affine
from retreg_server.evaluation.cases import Pair
from retreg_server.evaluation.gallery import save_checkerboard


def test_fields_alternate_between_fixed_and_moving(tmp_path):
    grid = Grid.of_picture(80, 80)
    ramp = np.broadcast_to(np.linspace(10, 250, 80), (1, 1, 80, 80))
    pair = Pair(Image(ramp.copy(), grid), Image(ramp[..., ::-1].copy(), grid))
    save_checkerboard(tmp_path / "board.jpg", pair, Affine.identity())
    board = np.asarray(PIL.Image.open(tmp_path / "board.jpg").convert("L")).astype(int)
    assert board[5, 5] < 40  # fixed: dark on the left
    assert board[15, 5] > 200  # moving: bright on the left


def test_a_volume_is_shown_by_three_slices_with_the_top_of_the_head_up(tmp_path):
    grid = Grid((20, 24, 30), np.diag([1.0, 1.0, 1.0, 1.0]))
    values = np.full((1, 30, 24, 20), 100.0)
    values[0, 15:] = 200  # the upper half
    image = Image(values, grid)
    save_checkerboard(tmp_path / "board.jpg", Pair(image, image), Affine.identity())
    board = np.asarray(PIL.Image.open(tmp_path / "board.jpg").convert("L")).astype(int)
    rows, columns = board.shape
    assert columns == 3 * rows
    coronal = board[:, rows : 2 * rows]
    middle = coronal[:, rows // 2 + 5]
    assert middle[rows // 4] > middle[3 * rows // 4] + 50
