"""Groupwise registration, with stand-ins for the network and the engine that know the truth."""

from __future__ import annotations

import dataclasses
import json
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from retreg.errors import Cancelled, InputError, OptionError, RegistrationError
from retreg.files import read_image, read_transform, write_image
from retreg.fitting import fit_similarity
from retreg.geometry import Grid, apply_matrix
from retreg.image import Image
from retreg.messages import Keypoints, ModelInfo, Option
from retreg.quality import judge
from retreg.transforms import Affine, Chain
from retreg_server.cli import main
from retreg_server.commands import groupwise as command
from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration import engine
from retreg_server.registration.groupwise import group as group_module
from retreg_server.registration.groupwise import links
from retreg_server.registration.groupwise.group import register_group
from retreg_server.registration.keymorph.detection import Detection
from retreg_server.registration.keymorph.detectors import KeypointDetections
from retreg_server.registration.keymorph.inputs import head_cube
from retreg_server.registration.keymorph.mean_shape import mean_shape
from retreg_server.registration.keymorph.model import FAMILIES, WEIGHTINGS, KeyMorph
from retreg_server.registration.keymorph.similarity import mutual_information
from retreg_server.registration.model import Estimate, Stages
from retreg_server.registration.numerics.running_mean import RunningMean
from retreg_server.registration.numerics.spaces import canonical
from retreg_server.registration.quality import volume as volume_quality
from retreg_server.registration.volume.brain import AutoBrain

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
PREPARED: WeakKeyDictionary[Image, tuple[Image, Image]] = WeakKeyDictionary()


class FakeDetector:
    """Knows the true places of 60 landmarks in every image, up to 0.5 mm."""

    def __init__(self, images, points):
        self.images, self.points = images, points

    def __call__(self, image: Image, _role: str, second: bool, _device: str) -> KeypointDetections:
        known = [n for n, x in enumerate(self.images) if np.array_equal(x.array, image.array)]
        if not known:
            raise RegistrationError("The image shows nothing.")
        number = known[0]
        cube = head_cube(canonical(image), "fixed", 64, 3.5)
        random = np.random.default_rng(10 * number + second)
        places = self.points[number] + random.normal(0, 0.5, self.points[number].shape)
        norm = apply_matrix(np.linalg.inv(cube.world_from_norm), places)
        points, one = torch.tensor(norm, dtype=torch.float32), torch.ones(len(norm))
        found = Detection(points, one, one, torch.eye(3, 4), 0.1)
        return KeypointDetections(cube.tensor, cube.world_from_norm, [found])


class FakeEngine:
    """Knows from where to where the images go, up to error_mm; finds nothing in any other."""

    info = AutoBrain.info

    def __init__(self, images, truths, error_mm=0.3):
        self.images, self.truths, self.error_mm = images, truths, error_mm

    def estimate(self, fixed, moving, options, stages):
        assert options["transform"] in self.info.produces
        stages.at(0.5)
        ways = [self._way(image) for image in (fixed, moving)]
        shifts = np.eye(4), np.eye(4)
        for shift, number in zip(shifts, (0, 1), strict=True):
            shift[number, 3] = self.error_mm
        forward, backward = (
            Affine(shift @ b.moving_from_fixed @ a.inverse.moving_from_fixed)
            for shift, (a, b) in zip(shifts, (ways, ways[::-1]), strict=True)
        )
        points = ways[0](np.random.default_rng(0).uniform(-50, 50, (20, 3)))
        ones = np.ones(20)
        return Estimate(
            forward, Keypoints(points, ones, ones), Keypoints(forward(points), ones, ones), backward
        )

    def _way(self, image):
        for known, truth in zip(self.images, self.truths, strict=True):
            if np.array_equal(known.array, image.array):
                return truth
        raise RegistrationError("The image shows no head.")


@pytest.fixture
def an_engine(monkeypatch):
    """Puts an engine into the place of all others."""

    def put(found):
        for module in (engine, links):
            monkeypatch.setattr(module, "get_model", lambda _name: found)

    return put


@pytest.fixture(autouse=True)
def the_engine(heads, an_engine):
    an_engine(FakeEngine(heads[0], heads[1]))


@pytest.fixture(scope="module")
def stranger():
    """Another head, a tenth longer, in the pose of the first, and how it got there."""
    other = make_head_pair(11, spacing_mm=4.0, rotation_deg=0).fixed
    longer = Affine(np.diag([1.0, 1.1, 1.0, 1.0]))
    grid = Grid(other.grid.size, longer.moving_from_fixed @ other.grid.world_from_index)
    return Image(other.array, grid), longer


@pytest.fixture(autouse=True)
def quick_to_judge(monkeypatch):
    """In the voxels of the phantoms, with blocks as large as otherwise; each found once."""

    def prepared(image, role):
        if image not in PREPARED:
            PREPARED[image] = find(image, role)
        return PREPARED[image]

    find = volume_quality._prepared
    monkeypatch.setattr(volume_quality, "_prepared", prepared)
    monkeypatch.setattr(volume_quality, "SPACING", 4.5)
    monkeypatch.setattr(volume_quality, "BLOCK", 4)


def without_truth(model, number, offset_mm):
    """The model whose network finds wrong keypoints in one image."""
    detect = model.detect
    points = list(detect.points)
    points[number] = points[number] + np.asarray(offset_mm)
    return KeyMorph(INFO, FakeDetector(detect.images, points), mutual_information)


@pytest.fixture(scope="module")
def heads():
    """The same head four times, turned by ANGLES; landmarks and the truths from the first."""
    pairs = [
        make_head_pair(7, spacing_mm=4.0, rotation_deg=angle, stretch=0.005) for angle in ANGLES
    ]
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
    group = register_group(a_model, images[:3], options,
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


def mean_of(images, transforms, grid, shares):
    mean = RunningMean(grid, 1)
    for image, transform, share in zip(images, transforms, shares, strict=True):
        mean.add(image, transform, share)
    return mean


def test_the_mean_image_averages_only_what_is_seen(heads):
    images, _, _ = heads
    away = np.eye(4)
    away[0, 3] = 1e4
    alone = mean_of(images[:1], [Affine.identity()], images[0].grid, [1]).image
    both = mean_of(images[:2], [Affine.identity(), Affine(away)], images[0].grid, [1, 1]).image
    np.testing.assert_array_equal(alone.array, both.array)


def test_the_mean_image_is_made_of_the_shares_of_its_images(heads):
    images, _, _ = heads
    still, grid = Affine.identity(), images[0].grid
    first, second = (mean_of([x], [still], grid, [1]).image.array for x in images[:2])
    both = mean_of(images[:2], [still, still], grid, [1.5, 0.5]).image
    inside = images[1].grid.contains(grid.world(np.argwhere(first[0] > 0)[:, ::-1].astype(float)))
    places = tuple(np.argwhere(first[0] > 0)[inside].T)
    np.testing.assert_allclose(
        both.array[0][places], 0.75 * first[0][places] + 0.25 * second[0][places], atol=1e-5
    )


def test_the_mean_of_the_others_does_not_hold_the_image(heads):
    images, truths, _ = heads
    grid, shares = images[0].grid, [0.4, 1.1, 1.5]
    mean = mean_of(images[:3], truths[:3], grid, shares)
    others = mean_of(images[1:3], truths[1:3], grid, shares[1:]).image
    left = mean.without(images[0], truths[0], shares[0])
    np.testing.assert_allclose(left.array, others.array, atol=1e-5)
    mean.add(images[0], truths[0], -shares[0])
    np.testing.assert_allclose(mean.image.array, others.array, atol=1e-5)


def test_grey_and_coloured_pictures_meet_in_a_mean_of_either_kind():
    values = np.random.default_rng(0).uniform(0, 1, (3, 1, 12, 14)).astype(np.float32)
    colour, grey = (Image(x, Grid.of_picture(14, 12)) for x in (values, values[:1]))
    for channels in (1, 3):
        mean = RunningMean(colour.grid, channels)
        for image in (colour, grey):
            mean.add(image, Affine.identity(), 1.0)
        assert mean.image.array.shape == (channels, 1, 12, 14)


@pytest.mark.parametrize(("place", "count"), [(0, 2), (3, 3)])
def test_a_stranger_is_named_and_left_out(heads, an_engine, stranger, place, count):
    images, truths, landmarks = heads
    group_images = [*images[:place], stranger[0], *images[place:count]]
    ways = [*truths[:place], stranger[1], *truths[place:count]]
    an_engine(FakeEngine(group_images, ways))
    detect = FakeDetector(group_images, [way(landmarks) for way in ways])
    group = register_group(KeyMorph(INFO, detect, mutual_information), group_images, {})
    assert group.left_out == (place,)
    found = group.results[place].quality
    assert (found.verdict, found.numbers["share"]) == ("fail", 0)
    assert "does not show what the others show" in found.reason
    rest = [result for n, result in enumerate(group.results) if n != place]
    assert [result.quality.verdict for result in rest] == ["accept"] * count
    kept = [image for n, image in enumerate(group_images) if n != place]
    alone = mean_of(kept, [r.transform for r in rest], kept[0].grid,
                    [r.quality.numbers["share"] for r in rest]).image
    assert group.template.grid is kept[0].grid
    np.testing.assert_allclose(group.template.array, alone.array, atol=1e-4)


def test_an_image_that_shows_nothing_is_left_out(heads, a_model):
    images, _, _ = heads
    blank = Image(np.zeros_like(images[0].array), images[0].grid)
    group = register_group(a_model, [blank, *images[:2]], {})
    assert group.left_out == (0,)
    assert group.results[0].quality.verdict == "fail"
    assert len(group.results[0].fixed_keypoints) == 0


def test_no_two_images_that_go_together_have_no_mean(heads, a_model, stranger):
    images, _, _ = heads
    model = a_model
    with pytest.raises(RegistrationError, match="No two of the images show the same thing"):
        register_group(model, [images[0], stranger[0]], {})


@pytest.mark.parametrize(("number", "offset_mm"), [(0, (30, 0, 0)), (1, (0, -25, 25))])
def test_keypoints_that_are_off_are_mended_by_the_engine(heads, a_model, number, offset_mm):
    images, truths, _ = heads
    model = without_truth(a_model, number, offset_mm)
    group = register_group(model, images[:2], {"transform": "rigid"})
    home = group.results[0].transform(group.results[0].fixed_keypoints.points)
    there = group.results[1].transform(group.results[0].fixed_keypoints.points)
    assert np.linalg.norm(truths[1](home) - there, axis=1).max() < 4.0
    assert [result.quality.verdict for result in group.results] == ["accept"] * 2
    assert group.results[1].quality.numbers["keypoint_rms_mm"] > 20


@pytest.mark.parametrize("offset_mm", [(30, 0, 0), (0, -25, 25)])
def test_keypoints_that_are_off_are_not_accepted_when_the_engine_finds_nothing(
    heads, a_model, an_engine, offset_mm
):
    images, truths, _ = heads
    an_engine(FakeEngine(images[:2], truths[:2]))
    model = without_truth(a_model, 2, offset_mm)
    group = register_group(model, images[:3], {"transform": "rigid"})
    assert group.results[2].quality.verdict != "accept"
    assert group.left_out == (2,)
    assert [result.quality.verdict for result in group.results[:2]] == ["accept"] * 2


@pytest.mark.parametrize("turn", [(0, 0, 40), (50, 0, 0)])
def test_an_image_that_resembles_only_itself_is_not_accepted(heads, a_model, monkeypatch, turn):
    """It was believed to belong: the mean holds it, and is still no evidence for it."""
    images, _, _ = heads
    wrong = np.eye(4)
    wrong[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    find = group_module.find_star

    def believing(linker, candidates, stages):
        star = find(linker, candidates, stages)
        if 1 not in candidates:
            return star
        link = star.links[1]
        way = Affine(link.result.transform.moving_from_fixed @ wrong)
        result = dataclasses.replace(link.result, transform=way, backward=way.inverse)
        others = {**star.links, 1: dataclasses.replace(link, result=result)}
        return dataclasses.replace(star, links=others)

    monkeypatch.setattr(group_module, "find_star", believing)
    group = register_group(a_model, images[:3], {"transform": "rigid"})
    assert group.left_out == (1,)
    assert group.results[1].quality.verdict == "fail"
    assert [group.results[n].quality.verdict for n in (0, 2)] == ["accept"] * 2


def test_a_triangle_of_images_shows_how_far_its_ways_are_apart(heads, a_model):
    """Each way has the error of the engine, so the two ways differ by less than three of them."""
    images, _, _ = heads
    linker = links.Linker.of(a_model, {"transform": "rigid"}, images[:3])
    star = links.find_star(linker, range(3), Stages())
    direct = linker.pair(1, 2, Stages()).result.transform
    size = np.linalg.norm(np.ptp(star.links[2].result.fixed_keypoints.points, axis=0))
    for shift_mm in (0.5, 6.0):
        aside = np.eye(4)
        aside[0, 3] = shift_mm
        way = Chain((direct, Affine(aside)))
        error = links.triangle_error(images[:3], star, (1, 2), way)
        assert abs(error * size - shift_mm) < 3 * 0.3 + 0.1
    triangles = links.triangle_errors(linker, star, Stages())
    assert set(triangles) == {frozenset({0, 1, 2})}


def test_a_result_whose_triangle_stays_open_is_not_accepted():
    good = {"agreement": 0.9, "blocks": 50.0, "overlap": 0.9, "inconsistency": 0.001,
            "folding": 0.0, "inverse_consistency_p95_mm": 0.1}
    assert judge({**good, "triangle": 0.001})[0] == "accept"
    assert judge({**good, "triangle": 0.03})[0] == "check"
    verdict, reason = judge({**good, "triangle": 0.2})
    assert verdict == "fail"
    assert "by another image of the group" in reason


@pytest.mark.parametrize("moment", [0.01, 0.3])
def test_a_group_can_be_cancelled(heads, a_model, moment):
    def stop(_stage, fraction):
        if fraction >= moment:
            raise Cancelled("Stopped on request.")

    with pytest.raises(Cancelled):
        register_group(a_model, heads[0][:2], {"transform": "rigid"}, stop)


@pytest.mark.parametrize(
    ("given", "family", "linear"),
    [({}, "affine", "affine"), ({"transform": "rigid"}, "rigid", "rigid"),
     ({"transform": "tps"}, "tps", "affine"),
     ({"transform": "deformable"}, "deformable", "affine")],
)
def test_the_transform_is_the_one_that_is_wanted(a_model, given, family, linear):
    linker = links.Linker.of(a_model, given, [])
    assert (linker.family, linker.linear_family) == (family, linear)
    assert linker.described["transform"] == family
    with pytest.raises(OptionError):
        links.Linker.of(a_model, {"transform": "quadratic"}, [])


def test_groups_of_one_and_of_another_kind_are_refused(heads, a_model):
    images, _, _ = heads
    with pytest.raises(InputError, match="two or more"):
        register_group(a_model, images[:1], {})
    picture = Image(np.zeros((1, 1, 20, 20)), images[0].grid.of_picture(20, 20))
    with pytest.raises(InputError, match="Image 2 is a picture"):
        register_group(a_model, [images[0], picture], {})


def test_points_on_a_line_have_no_mean(heads, an_engine):
    images, truths, _ = heads
    an_engine(LineEngine(images, truths))
    line = np.outer(np.linspace(-30, 30, 40), [1.0, 0, 0])
    model = KeyMorph(INFO, FakeDetector(images, [line] * 4), mutual_information)
    model.detect.__class__ = ExactDetector
    with pytest.raises(RegistrationError, match="no mean"):
        register_group(model, images[:2], {})


class LineEngine(FakeEngine):
    """Knows only points on a line."""

    def estimate(self, fixed, moving, options, stages):
        found = super().estimate(fixed, moving, options, stages)
        points = np.outer(np.linspace(-30, 30, 20), [1.0, 0, 0])
        return dataclasses.replace(
            found,
            fixed_keypoints=dataclasses.replace(found.fixed_keypoints, points=points),
            moving_keypoints=dataclasses.replace(found.fixed_keypoints, points=points),
        )


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


def test_the_command_names_what_it_left_out_and_says_so_to_the_shell(
    heads, a_model, tmp_path, monkeypatch, capsys
):
    images, _, _ = heads
    blank = Image(np.zeros_like(images[0].array), images[0].grid)
    files = [tmp_path / f"{name}.nrrd" for name in ("first", "second", "blank")]
    for file, image in zip(files, (*images[:2], blank), strict=True):
        write_image(file, image)
    monkeypatch.setattr(command, "_model", lambda *_: a_model)
    out = tmp_path / "out"
    assert main(["groupwise", *map(str, files), "-o", str(out), "--transform", "rigid"]) == 3
    assert "Left out of the mean: 03-blank." in capsys.readouterr().out
    written = json.loads((out / "groupwise.json").read_text())["images"]
    assert [each["verdict"] for each in written.values()] == ["accept", "accept", "fail"]
    assert (written["03-blank"]["share"], written["03-blank"]["keypoint_rms_mm"]) == (0, None)


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
