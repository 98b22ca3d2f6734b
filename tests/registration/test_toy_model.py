"""A trained model is one file, one entry of the registry and one folder of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import retreg_server.registration
import retreg_server.training
from retreg.errors import FileError, InputError, OptionError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import RegistrationRequest
from retreg_server.cli import main
from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration import engine, registry
from retreg_server.registration.networks import weights
from retreg_server.training.recipe import recipe_of

MODEL = '''
from functools import cached_property
import numpy as np
import torch
from retreg.messages import Keypoints, ModelInfo, Option
from retreg.transforms import Affine
from retreg_server.registration.model import Estimate
from retreg_server.registration.networks.weights import load_metadata, load_network


class Shift(torch.nn.Module):
    def __init__(self, axes):
        super().__init__()
        self.mm = torch.nn.Parameter(torch.zeros(axes))


def build(architecture):
    return Shift(architecture["axes"])


class Toy:
    def __init__(self):
        self.info = ModelInfo(
            "toy", "Toy", ("volume",), ("rigid",), (Option("transform", "", "rigid", ("rigid",)),),
            weights_sha256=load_metadata("toy").sha256, subject="head",
        )

    @cached_property
    def net(self):
        return load_network("toy", build)[0]

    def load(self):
        self.net

    def estimate(self, fixed, moving, options, stages):
        with stages.stage("toying", 1.0):
            matrix = np.eye(4)
            matrix[:3, 3] = self.net.mm.numpy()
        points = Keypoints(np.zeros((1, 3)), np.ones(1), np.ones(1, bool))
        forward = Affine(matrix)
        return Estimate(forward, points, points, forward.inverse)
'''
RECIPE = '''
from types import SimpleNamespace
import torch
from retreg_server.registration.toy import Shift
from retreg_server.training.export import Bundle
from retreg_server.training.recipe import Recipe

WANTED = torch.tensor([3.0, -2.0, 1.0])


class Architecture(SimpleNamespace):
    def build(self):
        net = Shift(self.axes)
        net.mixed_precision = False
        return net

    def as_dict(self):
        return dict(vars(self))


class Task:
    architecture = Architecture(axes=3, dimensions=3)

    def loss(self, net, batch, progress, generator):
        return (net.mm - WANTED).square().sum()

    def validation(self, net):
        return {"error": float((net.mm - WANTED).norm())}


def bundle(order, recipe, hardware):
    return Bundle("toy", "A shift", Task.architecture, 8, 1.0, "none", "mm", recipe, ("none",), hardware)


RECIPE = Recipe(lambda order: Task(), bundle)
'''  # noqa: E501


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The two files and the entry of a model called toy; gives the folder of all weights."""
    for package, text, name in (
        (retreg_server.registration, MODEL, "toy"),
        (retreg_server.training, RECIPE, "toy_recipe"),
    ):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setitem(registry.MODELS, "toy", registry.Entry("toy:Toy", "toy_recipe:RECIPE"))
    folder = tmp_path / "weights"
    monkeypatch.setattr(registry, "WEIGHTS", folder)
    monkeypatch.setattr(weights, "FOLDER", folder)
    for function in (weights.load_metadata, weights.load_network):
        plain = getattr(function, "__wrapped__", function)
        monkeypatch.setattr(plain, "__defaults__", (folder,))
    registry.get_model.cache_clear()
    weights.load_metadata.cache_clear()
    yield folder
    registry.get_model.cache_clear()
    weights.load_metadata.cache_clear()


def trained(toy: Path) -> None:
    """What `retreg train toy` and its export do."""
    from retreg_server.training.export import export_bundle
    from retreg_server.training.loop import Plan, train
    from retreg_server.training.recipe import TrainingOrder

    order = TrainingOrder(None, toy.parent / "run", 128, 0, "cpu")
    recipe = recipe_of("toy")
    told = {"recipe": "toy", "steps": 200}
    plan = Plan(order.out, steps=200, batch=1, rate=0.1, seed=0, device="cpu", recipe=told)
    train(recipe.task(order), plan)
    export_bundle(order.out, toy, recipe.bundle(order, told, "a test"))


def test_without_weights_it_is_not_offered(toy):
    assert not toy.exists()
    assert "toy" not in registry.offered_models()
    with pytest.raises(OptionError, match="'toy' is not known"):
        registry.get_model("toy")


def test_with_the_weights_of_its_recipe_it_registers(toy, capsys):
    trained(toy)
    assert "toy" in registry.offered_models()
    assert not registry.load_catalogue(is_warm=True).failures
    pair = make_head_pair(5, spacing_mm=8.0)
    result = engine.register(RegistrationRequest(pair.fixed, pair.moving, "toy"))
    moved = result.transform(np.zeros((1, 3)))[0]
    np.testing.assert_allclose(moved, [3, -2, 1], atol=0.3)  # as far as the training came
    assert result.provenance["weights_sha256"] == weights.load_metadata("toy").sha256
    assert main(["models"]) == 0
    assert "\ntoy " in capsys.readouterr().out


def test_damaged_weights_are_told_and_take_no_other_model_away(toy):
    trained(toy)
    stored = toy / "toy" / weights.TENSORS
    stored.write_bytes(stored.read_bytes()[:-1] + b"\0\1")
    with pytest.raises(FileError, match="weights of toy"):
        registry.get_model("toy").load()
    catalogue = registry.load_catalogue(is_warm=True)
    assert set(catalogue.failures) == {"toy"}
    assert "auto-brain" in {info.name for info in catalogue.models}


def test_the_engine_asks_the_subject_whether_an_image_fits(toy):
    trained(toy)
    picture = Image(np.zeros((1, 1, 9, 9), np.uint8), Grid.of_picture(9, 9))
    with pytest.raises(InputError, match="registers volumes"):
        engine.register(RegistrationRequest(picture, picture, "toy"))
