"""The joint model of vessels and displacement: what its network sees, and what becomes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retreg.errors import RegistrationError
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.registration.fundus.prepared_picture import prepared_picture
from retreg_server.registration.fundus.segreg_views import joint_field, vessel_probability
from retreg_server.registration.model import SegmentationModel
from retreg_server.registration.networks.segreg_net import (
    MULTIPLE,
    STRIDE,
    SegRegArchitecture,
    segreg_net_from_dict,
)
from retreg_server.registration.networks.weights import FOLDER, TENSORS, load_metadata, load_network
from retreg_server.registration.preprocessing.retina_picture import retina_picture
from retreg_server.registration.registry import get_model, offered_models
from retreg_server.training.segreg_pictures import made_up_plates

shipped = pytest.mark.skipif("segreg-fundus" not in offered_models(), reason="needs its weights")


class Told(torch.nn.Module):
    """Answers with a field that it is told, marks dark or bright pixels, and remembers branches."""

    def __init__(self, field: tuple[float, float] = (0.0, 0.0)) -> None:
        super().__init__()
        self.told, self.branches = torch.tensor(field), []

    def segmented(self, picture, branch):
        self.branches.append(branch)
        assert picture.shape[2] % MULTIPLE == picture.shape[3] % MULTIPLE == 0
        vessels = picture < -0.9 if branch == "dark" else picture > 0.9
        return picture, vessels.float()

    def nodes(self, fixed, _moving):
        b, _, height, width = fixed.shape
        field = self.told[None, :, None, None].expand(b, 2, height // STRIDE, width // STRIDE)
        return torch.cat([field[:1], -field[1:]]) if b > 1 else field  # upside down: reversed


def crossed(dark: bool, column: int, row: int, grid: Grid) -> Image:
    """A noisy picture with a vertical and a horizontal vessel of three pixels."""
    width, height, _ = grid.size
    random = np.random.default_rng(3)
    values = 120 + 6 * random.normal(size=(height, width))
    values[:, column - 1 : column + 2] = values[row - 1 : row + 2] = 60 if dark else 220
    return Image(values.clip(0, 255).astype(np.uint8)[None, None], grid)


def line(profile: np.ndarray) -> float:
    """The middle of the strongest line across a profile."""
    top = int(profile.argmax())
    around = np.arange(max(0, top - 5), min(len(profile), top + 6))
    return float(np.average(around, weights=profile[around]))


@pytest.mark.parametrize("dark", [True, False])
@pytest.mark.parametrize(("width", "height"), [(400, 400), (600, 430), (311, 500)])
def test_vessels_are_marked_where_they_are_on_the_pixels_of_the_picture(dark, width, height):
    net = Told()
    matrix = np.diag([0.02, 0.02, 1, 1])
    matrix[:3, :3] = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]]) @ matrix[:3, :3]
    grid = Grid((width, height, 1), matrix)
    column, row = width // 3, height // 2
    found = vessel_probability(net, crossed(dark, column, row, grid))
    assert found.grid.size == grid.size
    np.testing.assert_allclose(found.grid.world_from_index, matrix)
    assert net.branches == ["dark" if dark else "bright"]
    values = found.array[0, 0]
    assert values.dtype == np.float32
    assert abs(line(values[20 : row - 20].sum(axis=0)) - column) < 0.5
    assert abs(line(values[:, column + 20 : -20].sum(axis=1)) - row) < 0.5


def test_a_blank_picture_has_no_vessels_to_mark():
    blank = Image(np.zeros((1, 1, 64, 64), np.uint8), Grid.of_picture(64, 64))
    with pytest.raises(RegistrationError, match="blank"):
        vessel_probability(Told(), blank)


def test_the_field_counts_in_pixels_of_the_working_picture():
    pair = make_fundus_pair(11, size=400, rotation_deg=0, elastic_px=0)
    fixed = prepared_picture(retina_picture(pair.fixed, "fixed", 768), "fixed")
    moving = prepared_picture(retina_picture(pair.moving, "moving", 768), "moving")
    net = Told((2.0, -4.0))
    found = joint_field(net, fixed, moving, lambda points: points, torch.device("cpu"))
    points = np.array([[100.0, 200.0], [400.0, 300.0]])
    np.testing.assert_allclose(found.at(points), [[3.0, -6.0]] * 2, atol=1e-5)
    assert net.branches == ["dark", "bright"]  # colour and angiogram


def test_an_architecture_is_built_again_from_its_values():
    values = SegRegArchitecture(width=4, features=6, radius=2).as_dict()
    net = segreg_net_from_dict(values)
    assert net.architecture.as_dict() == values
    assert net.shared.in_channels == 6


@shipped
def test_the_weights_are_small_and_say_how_they_were_made():
    assert (FOLDER / "segreg-fundus" / TENSORS).stat().st_size < 2e6
    own = load_metadata("segreg-fundus").card["retreg"]
    assert own["recipe"]["seed"] == 0
    assert own["hours"] > 0
    assert len(own["trained_on"]) == 2
    assert 0 < own["measured"]["error"] < own["measured"]["error_before"]
    assert own["measured"]["vessel_dice"] > 0.6


@shipped
def test_the_shipped_network_sees_both_sides_of_a_vessel_alike():
    net, _ = load_network("segreg-fundus", segreg_net_from_dict)
    picture = torch.zeros(1, 1, 128, 128)
    picture[..., 60:64] = -0.8
    with torch.no_grad():
        upright = net.segmented(picture, "dark")[1]
        turned = net.segmented(picture.flip(2, 3), "dark")[1].flip(2, 3)
    inner = (slice(None), slice(None), slice(20, -20), slice(20, -20))
    assert upright[inner][..., 40:44].mean() > 0.7
    assert upright[inner][..., :30].mean() < 0.1
    assert (upright - turned)[inner].abs().mean() < 0.02


@shipped
def test_the_vessels_of_an_unseen_eye_are_found_in_both_modalities(tmp_path):
    net, _ = load_network("segreg-fundus", segreg_net_from_dict)
    dark, bright, vessels, _, inside = made_up_plates(tmp_path / "p.npz", 77, 1)[0].layers[0]
    truth = vessels > 0.5
    for branch, shown in (("dark", dark), ("bright", bright)):
        with torch.no_grad():
            seen = net.segmented(shown[None, None], branch)[1][0, 0] * inside > 0.5
        assert 2 * (seen & truth).sum() / (seen.sum() + truth.sum()) > 0.6


@shipped
def test_the_model_is_offered_as_one_that_segments():
    assert isinstance(get_model("segreg-fundus"), SegmentationModel)
