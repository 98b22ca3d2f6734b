"""A rigid transform between images of different scales is refused with the reason."""

from __future__ import annotations

import numpy as np
import pytest

from retreg.errors import InputError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import RegistrationRequest
from retreg_server.registration import engine
from retreg_server.registration.registry import default_model
from retreg_server.registration.subject import refuse_other_scale


def a_picture(spacing: float, side: int = 768) -> Image:
    grid = Grid((side, side, 1), np.diag([spacing, spacing, 1, 1]))
    return Image(np.zeros((1, 1, side, side), np.uint8), grid)


def a_volume(spacing: float, side: int = 12) -> Image:
    matrix = np.diag([spacing, spacing, spacing, 1])
    return Image(np.zeros((1, side, side, side), np.uint8), Grid((side, side, side), matrix))


DIFFERENT = [
    (a_picture(1), a_picture(0.006), "1 : 167"),
    (a_picture(0.006), a_picture(1), "1 : 167"),
    (a_picture(1, 1536), a_picture(0.0125), "1 : 160"),
    (a_picture(0.25, 400), a_picture(1), "1 : 8"),
    (a_volume(1), a_volume(0.05), "1 : 20"),
    (a_volume(0.001), a_volume(1), "1 : 1000"),
]


@pytest.mark.parametrize(("fixed", "moving", "scale"), DIFFERENT)
def test_rigid_is_refused_where_the_scale_must_change(fixed, moving, scale):
    model = "auto-fundus" if fixed.is_picture else "auto-brain"
    with pytest.raises(InputError, match="similarity") as refused:
        engine.register(RegistrationRequest(fixed, moving, model, {"transform": "rigid"}))
    assert f"rigid transform cannot change the scale {scale};" in str(refused.value)


def test_the_unit_of_each_size_is_named():
    with pytest.raises(InputError, match=r"1086 px .* 6\.52 mm"):
        refuse_other_scale("rigid", a_picture(1), a_picture(0.006))


@pytest.mark.parametrize("transform", ["similarity", "affine", "quadratic", "tps", "deformable"])
@pytest.mark.parametrize(("fixed", "moving"), [pair[:2] for pair in DIFFERENT])
def test_what_can_change_the_scale_is_not_refused(transform, fixed, moving):
    refuse_other_scale(transform, fixed, moving)


@pytest.mark.parametrize(
    ("fixed", "moving"),
    [
        (a_picture(1), a_picture(1, 300)),  # both in pixels: another camera
        (a_picture(0.006), a_picture(0.0125)),
        (a_picture(1, 400), a_picture(1.01, 400)),
        (a_volume(1), a_volume(0.2)),  # part of a head
    ],
)
def test_images_of_about_one_scale_are_not_refused(fixed, moving):
    refuse_other_scale("rigid", fixed, moving)


@pytest.mark.parametrize("pair", [(a_picture(1, 40), a_volume(1)), (a_volume(9), a_picture(1, 9))])
def test_a_picture_with_a_volume_is_refused_before_a_model_is_chosen(pair):
    with pytest.raises(InputError, match=r"The fixed image is a .* and the moving image is a "):
        default_model(*pair)
