"""Deformable models with the weights that are shipped: what every one of them must do."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from retreg.geometry import Grid, apply_matrix
from retreg.image import Image
from retreg.messages import RegistrationRequest, RegistrationResult
from retreg.quality import jacobian_determinants
from retreg.resample import resample
from retreg.transforms import Chain, DisplacementField
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration import engine
from retreg_server.registration.networks.field_net import field_net_from_dict
from retreg_server.registration.networks.weights import (
    FOLDER,
    TENSORS,
    load_metadata,
    load_network,
)
from retreg_server.registration.registry import offered_models

NAMES = ("smoothproper-fundus", "smoothproper-brain", "voxelmorph-brain")
SHIPPED = [name for name in NAMES if name in offered_models()]

pytestmark = pytest.mark.usefixtures("equal_pairs_are_aligned_once")


@pytest.fixture(params=SHIPPED)
def model(request) -> str:
    return request.param


@cache
def a_warped_pair(model: str) -> tuple[Image, Image, np.ndarray, np.ndarray]:
    """An image, its smoothly warped copy in the same frame, and points of both."""
    if "fundus" in model:
        pair = make_fundus_pair(5, size=512, rotation_deg=0, elastic_px=0, moving="redfree")
        fixed, points, size = pair.fixed, pair.landmarks, 6.0
    else:
        pair = make_head_pair(5, spacing_mm=3.0, rotation_deg=0, moving="t1")
        fixed, points, size = pair.fixed, pair.landmarks, 8.0
    warp = smooth_field(fixed.grid, size)
    moving = resample(fixed, warp, fixed.grid)
    inverse = points.copy()
    for _ in range(30):
        inverse = points - (warp(inverse) - inverse)
    return fixed, moving, points, inverse


def smooth_field(grid: Grid, size_mm: float) -> DisplacementField:
    """A displacement of that length at its largest, with one wave over the image."""
    nodes = [6 if n > 1 else 1 for n in grid.size]
    lattice = np.eye(4)
    for axis, count in enumerate(nodes):
        lattice[axis, axis] = (grid.size[axis] - 1) / (count - 1) if count > 1 else 1.0
    random = np.random.default_rng(3)
    vectors = random.normal(size=(3, *nodes[::-1]))
    vectors[2] *= grid.size[2] > 1
    vectors *= size_mm / np.linalg.norm(vectors, axis=0).max()
    return DisplacementField(vectors, Grid(tuple(nodes), grid.world_from_index @ lattice))


def register(model: str, fixed: Image, moving: Image, **options: object) -> RegistrationResult:
    return engine.register(RegistrationRequest(fixed, moving, model, options))


@cache
def the_result(model: str) -> RegistrationResult:
    fixed, moving, _, _ = a_warped_pair(model)
    return register(model, fixed, moving, refine=False)


def error(model: str, result: RegistrationResult) -> float:
    _, _, points, truth = a_warped_pair(model)
    return float(np.linalg.norm(result.transform(points) - truth, axis=1).mean())


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_small_and_say_how_they_were_made(name):
    assert (FOLDER / name / TENSORS).stat().st_size < 20e6
    own = load_metadata(name).card["retreg"]
    assert own["recipe"]["seed"] == 0
    assert own["hours"] > 0
    assert own["trained_on"]
    assert own["hardware"]
    assert 0 < own["measured"]["error"] < own["measured"]["error_before"]
    assert (FOLDER / name / "docs" / "training.jsonl").read_text().strip()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_fit_their_network(name):
    net, metadata = load_network(name, field_net_from_dict)
    images = torch.rand(2, 1, 1, *(64,) * net.architecture.dimensions)
    with torch.no_grad():
        field = net(*images)[-1]
    assert torch.isfinite(field).all()
    assert metadata.pixels % net.architecture.multiple == 0


def test_the_network_takes_a_smooth_warp_back_at_least_in_part(model):
    fixed, moving, _, _ = a_warped_pair(model)
    aligned = register(model, fixed, moving, transform="affine")
    assert error(model, the_result(model)) < 0.9 * error(model, aligned)


def test_the_field_comes_first_and_does_not_fold(model):
    result = the_result(model)
    assert isinstance(result.transform, Chain)
    assert isinstance(result.transform.transforms[0], DisplacementField)
    fixed = a_warped_pair(model)[0]
    frame = fixed.grid.direction[:, : 2 if fixed.is_picture else 3]
    points = fixed.grid.lattice(3)
    step_mm = float(fixed.grid.spacing.min())
    assert jacobian_determinants(result.transform, points, frame, step_mm).min() > 0
    assert result.quality.numbers["folding"] == 0


def test_an_image_with_itself_hardly_moves(model):
    fixed, _, points, _ = a_warped_pair(model)
    result = register(model, fixed, fixed, start="identity", refine=False)
    moved = np.linalg.norm(result.transform(points) - points, axis=1).mean()
    assert moved < 0.5 * fixed.grid.spacing[0]
    assert result.quality.verdict == "accept"


def test_moving_both_images_in_the_world_moves_the_result_with_them(model):
    fixed, moving, points, _ = a_warped_pair(model)
    turn = np.eye(4)
    turn[:3, :3] = [[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]]
    turn[:3, 3] = [200, -130, 45]

    def placed(image: Image) -> Image:
        return Image(image.array, Grid(image.grid.size, turn @ image.grid.world_from_index))

    # The volumes are looked at along other axes, which a network sees a little differently.
    limit = (0.5 if fixed.is_picture else 1.0) * fixed.grid.spacing[0]
    result = register(model, placed(fixed), placed(moving), refine=False)
    expected = apply_matrix(turn, the_result(model).transform(points))
    found = result.transform(apply_matrix(turn, points))
    assert np.linalg.norm(found - expected, axis=1).mean() < limit


def test_noise_is_not_accepted_because_a_field_can_be_bent_to_it(model):
    fixed = a_warped_pair(model)[0]
    values = np.random.default_rng(5).integers(0, 255, fixed.array.shape).astype(np.uint8)
    result = register(model, fixed, Image(values, fixed.grid), start="identity", refine=False)
    assert result.quality.verdict != "accept"


def test_keymorph_can_give_the_start(model):
    fixed, moving, points, truth = a_warped_pair(model)
    result = register(model, fixed, moving, start="keymorph", refine=False)
    assert isinstance(result.transform.transforms[0], DisplacementField)
    error_mm = np.linalg.norm(result.transform(points) - truth, axis=1).mean()
    assert error_mm < 0.06 * np.ptp(points, axis=0).max()
