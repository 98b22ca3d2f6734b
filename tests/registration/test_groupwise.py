"""Groupwise registration, with a stand-in for the network that knows the true keypoints."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from retreg.errors import InputError, RegistrationError
from retreg.files import read_image, read_transform, write_image
from retreg.fitting import fit_similarity
from retreg.geometry import Grid, apply_matrix
from retreg.image import Image
from retreg.messages import ModelInfo, Option
from retreg.transforms import Affine
from retreg_server.cli import main
from retreg_server.commands import groupwise as command
from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration.groupwise import mean_image, mean_shape, register_group
from retreg_server.registration.keymorph.detection import Detection
from retreg_server.registration.keymorph.detectors import KeypointDetections
from retreg_server.registration.keymorph.inputs import head_cube
from retreg_server.registration.keymorph.model import FAMILIES, WEIGHTINGS, KeyMorph
from retreg_server.registration.keymorph.similarity import mutual_information
from retreg_server.registration.numerics.spaces import canonical

INFO = ModelInfo(
    "keymorph-brain", "Stand-in", ("volume",), FAMILIES,
    (
        Option("transform", "", FAMILIES[0], FAMILIES),
        Option("smoothing", "", 0.1, minimum=0.0),
        Option("weights", "", WEIGHTINGS[0], WEIGHTINGS),
        Option("robust", "", True),
        Option("device", "", "auto", ("auto", "cpu", "cuda")),
    ),
    subject="head",
)  # fmt: skip
ANGLES = (30, 100, 170)


class FakeDetector:
    """Knows the true places of 60 landmarks in every image, up to 0.5 mm."""

    def __init__(self, images, points):
        self.images, self.points = images, points

    def __call__(self, image: Image, _role: str, second: bool, _device: str) -> KeypointDetections:
        number = next(n for n, x in enumerate(self.images) if np.array_equal(x.array, image.array))
        cube = head_cube(canonical(image), "fixed", 64, 3.5)
        random = np.random.default_rng(10 * number + second)
        places = self.points[number] + random.normal(0, 0.5, self.points[number].shape)
        norm = apply_matrix(np.linalg.inv(cube.world_from_norm), places)
        points, one = torch.tensor(norm, dtype=torch.float32), torch.ones(len(norm))
        found = Detection(points, one, one, torch.eye(3, 4), 0.1)
        return KeypointDetections(cube.tensor, cube.world_from_norm, [found])


@pytest.fixture(scope="module")
def heads():
    """The same head four times, turned by ANGLES; landmarks and the truths from the first."""
    pairs = [make_head_pair(7, spacing_mm=4.0, rotation_deg=angle) for angle in ANGLES]
    images = [pairs[0].fixed, *(pair.moving for pair in pairs)]
    truths = [Affine.identity(), *(pair.truth for pair in pairs)]
    return images, truths, pairs[0].landmarks[:60]


@pytest.fixture(scope="module")
def a_model(heads):
    images, truths, landmarks = heads
    return KeyMorph(INFO, FakeDetector(images, [t(landmarks) for t in truths]), mutual_information)


@pytest.mark.parametrize("family", ["rigid", "affine", "tps"])
def test_all_images_meet_at_the_mean(heads, a_model, family):
    images, truths, landmarks = heads
    steps = []
    options = {"transform": family, "robust": False}
    group = register_group(a_model, images[: 3 if family == "tps" else 4], options,
                           lambda _stage, fraction: steps.append(fraction))
    homes = [
        result.transform(group.results[0].fixed_keypoints.points) for result in group.results
    ]
    for home, truth in zip(homes, truths, strict=False):
        missed = np.linalg.norm(truth(homes[0]) - home, axis=1)
        assert missed.mean() < 3.0
    numbers = [result.quality.numbers for result in group.results]
    assert max(n["keypoint_rms_mm"] for n in numbers) < 3.0
    assert all(n["agreement"] > 0.25 for n in numbers)
    assert steps == sorted(steps)
    assert group.rounds < 10
    assert group.template.grid is images[0].grid
    assert len(landmarks) == len(group.results[0].fixed_keypoints)


def random_shapes(count, noise):
    random = np.random.default_rng(3)
    base = random.uniform(-60, 60, (50, 3))
    turns = Rotation.random(count, random_state=4).as_matrix()
    shapes = [
        (base * random.uniform(0.9, 1.1, 3)) @ turn.T + random.normal(0, noise, base.shape) + 100
        for turn in turns
    ]
    return base, shapes, [np.ones(50)] * count


@pytest.mark.parametrize("family", ["rigid", "similarity", "affine", "tps"])
def test_the_mean_of_shapes_at_any_rotation_keeps_its_size_and_form(family):
    base, shapes, weights = random_shapes(12, 2.0)
    mean = mean_shape(shapes, weights, family, 0.1).points
    aligned = fit_similarity(mean, base)(mean)
    assert np.linalg.norm(aligned - base, axis=1).mean() < 6.0  # one axis of one shape: 10 %
    sizes = [np.sqrt(shape.var(axis=0).sum()) for shape in shapes]
    assert np.sqrt(mean.var(axis=0).sum()) == pytest.approx(np.mean(sizes), rel=0.03)
    assert np.linalg.norm(mean.mean(axis=0) - shapes[0].mean(axis=0)) < 3.0


def test_a_keypoint_that_is_not_trusted_in_an_image_does_not_pull_the_mean():
    _, shapes, weights = random_shapes(6, 0.1)
    clean = mean_shape(shapes, weights, "affine", 0.1).points
    spoilt = [shape.copy() for shape in shapes]
    spoilt[2][7] += 200
    doubted = [w.copy() for w in weights]
    doubted[2][7] = 1e-9
    mean = mean_shape(spoilt, doubted, "affine", 0.1).points
    assert np.abs(mean - clean).max() < 1.0


@pytest.mark.parametrize("family", ["rigid", "affine"])
def test_an_image_with_poor_keypoints_counts_less_in_a_robust_mean(family):
    base, shapes, weights = random_shapes(6, 0.5)
    shapes[3] = shapes[3] + np.random.default_rng(9).normal(0, 25, base.shape)
    robust, plain = (
        mean_shape(shapes, weights, family, 0.1, robust=choice) for choice in (True, False)
    )
    assert robust.shares[3] < 0.2 * np.delete(robust.shares, 3).min()
    assert robust.shares.mean() == pytest.approx(1)
    np.testing.assert_array_equal(plain.shares, 1)
    errors = [
        np.linalg.norm(fit_similarity(m.points, base)(m.points) - base, axis=1).mean()
        for m in (robust, plain)
    ]
    assert errors[0] < errors[1] - 0.5


@pytest.mark.parametrize("family", ["rigid", "tps"])
def test_two_images_share_the_mean_evenly(family):
    _, shapes, weights = random_shapes(2, 8.0)
    weights[1] = np.linspace(0.1, 1.9, 50)
    np.testing.assert_allclose(
        mean_shape(shapes, weights, family, 0.1, robust=True).shares, 1, atol=1e-9
    )


def test_the_mean_image_averages_only_what_is_seen(heads):
    images, _, _ = heads
    away = np.eye(4)
    away[0, 3] = 1e4
    alone = mean_image(images[:1], [Affine.identity()], images[0].grid, np.ones(1))
    both = mean_image(images[:2], [Affine.identity(), Affine(away)], images[0].grid, np.ones(2))
    np.testing.assert_array_equal(alone.array, both.array)


def test_the_mean_image_is_made_of_the_shares_of_its_images(heads):
    images, _, _ = heads
    still, grid = Affine.identity(), images[0].grid
    first, second = (mean_image([x], [still], grid, np.ones(1)).array for x in images[:2])
    both = mean_image(images[:2], [still, still], grid, np.array([1.5, 0.5]))
    inside = images[1].grid.contains(grid.world(np.argwhere(first[0] > 0)[:, ::-1].astype(float)))
    places = tuple(np.argwhere(first[0] > 0)[inside].T)
    np.testing.assert_allclose(
        both.array[0][places], 0.75 * first[0][places] + 0.25 * second[0][places], atol=1e-5
    )


def test_groups_of_one_and_of_another_kind_are_refused(heads, a_model):
    images, _, _ = heads
    with pytest.raises(InputError, match="two or more"):
        register_group(a_model, images[:1], {})
    picture = Image(np.zeros((1, 1, 20, 20)), images[0].grid.of_picture(20, 20))
    with pytest.raises(InputError, match="Image 2 is a picture"):
        register_group(a_model, [images[0], picture], {})


def test_points_on_a_line_have_no_mean(heads):
    images, _, _ = heads
    line = np.outer(np.linspace(-30, 30, 40), [1.0, 0, 0])
    model = KeyMorph(INFO, FakeDetector(images, [line] * 4), mutual_information)
    model.detect.__class__ = ExactDetector
    with pytest.raises(RegistrationError, match="no mean"):
        register_group(model, images[:2], {})


class ExactDetector(FakeDetector):
    """Without noise."""

    def __call__(self, image, role, second, device):
        detect = super().__call__(image, role, second, device)
        line = torch.linspace(-0.5, 0.5, 40)[:, None] * torch.tensor([1.0, 0, 0])
        one = torch.ones(40)
        return KeypointDetections(detect.image, detect.world_from_norm,
                    [Detection(line, one, one, torch.eye(3, 4), 0.1)])


def test_the_command_writes_the_mean_and_a_folder_per_image(heads, a_model, tmp_path, monkeypatch):
    images, _, _ = heads
    monkeypatch.setattr(command, "_model", lambda *_: a_model)
    files = [tmp_path / f"head{n}.nrrd" for n in range(2)]
    for file, image in zip(files, images, strict=False):
        write_image(file, image)
    out = tmp_path / "out"
    assert main(["groupwise", *map(str, files), "-o", str(out), "--transform", "rigid",
                 "--option", "weights=power", "--option", "robust=false"]) in (0, 3)
    written = json.loads((out / "groupwise.json").read_text())
    assert list(written["images"]) == ["01-head0", "02-head1"]
    assert all(each["share"] == 1 for each in written["images"].values())
    chosen = json.loads((out / "01-head0" / "result.json").read_text())["options"]
    assert (chosen["weights"], chosen["robust"], chosen["transform"]) == ("power", False, "rigid")
    template = read_image(out / "template.nrrd")
    assert template.grid.size == images[0].grid.size
    for name in written["images"]:
        assert callable(read_transform(out / name / "transform.h5"))
        assert (out / name / "warped.nrrd").exists()
        assert (out / name / "result.json").exists()


def test_the_mean_of_pictures_is_also_written_as_a_picture(tmp_path):
    values = np.linspace(-0.1, 1.2, 3 * 20 * 30).reshape(3, 1, 20, 30).astype(np.float32)
    template = Image(values, Grid.of_picture(30, 20))
    command.write_template(tmp_path, template)
    written = read_image(tmp_path / "template.png").array
    np.testing.assert_allclose(written / 255, values.clip(0, 1), atol=0.5 / 255 + 1e-6)
    np.testing.assert_array_equal(read_image(tmp_path / "template.nrrd").array, values)
    (tmp_path / "volume").mkdir()
    command.write_template(
        tmp_path / "volume", Image(np.ones((1, 4, 4, 4), np.float32), Grid((4, 4, 4), np.eye(4)))
    )
    assert not (tmp_path / "volume" / "template.png").exists()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("weights=heavy", "weights = 'heavy' is not known; use one of variance, power, none."),
        ("robust=perhaps", "robust = 'perhaps' was given; use true or false."),
        ("smoothing=much", "smoothing = 'much' was given; a number was expected."),
        ("speed=3", "keymorph-brain has no option speed"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_in_a_sentence(
    heads, a_model, tmp_path, monkeypatch, capsys, given, complaint
):
    monkeypatch.setattr(command, "_model", lambda *_: a_model)
    files = [tmp_path / f"head{n}.nrrd" for n in range(2)]
    for file, image in zip(files, heads[0], strict=False):
        write_image(file, image)
    arguments = ["groupwise", *map(str, files), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--option", given]) == 2
    assert complaint in capsys.readouterr().err
