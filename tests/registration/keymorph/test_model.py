"""KeyMorph with a stand-in for the network: it sees the true landmarks of made-up pairs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from retreg.errors import OptionError, RegistrationError
from retreg.files import read_markups, write_image
from retreg.fitting import fit_affine, fit_tps
from retreg.geometry import Grid, apply_matrix
from retreg.image import Image
from retreg.messages import ModelInfo, Option, RegistrationRequest
from retreg.quality import Quality
from retreg_server.cli import main
from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration import engine, registry
from retreg_server.registration.keymorph.detection import Detection
from retreg_server.registration.keymorph.detectors import KeypointDetections
from retreg_server.registration.keymorph.inputs import head_cube
from retreg_server.registration.keymorph.model import FAMILIES, WEIGHTINGS, KeyMorph
from retreg_server.registration.keymorph.similarity import mutual_information
from retreg_server.registration.model import SweepModel
from retreg_server.registration.networks.devices import chosen_device
from retreg_server.registration.numerics.robust_weights import robust_weights
from retreg_server.registration.numerics.spaces import canonical

COUNT = 64
OUTLIERS = 6


class FakeDetector:
    """Knows the landmarks of a pair; each look errs by noise_mm, some points by far more.

    The first detection of the moving image is a mirror flip that fits the template as well.
    """

    def __init__(self, pair, noise_mm=1.0, outliers=0):
        self.pair, self.noise_mm, self.outliers, self.calls = pair, noise_mm, outliers, 0

    def __call__(self, image: Image, role: str, second: bool, _device: str) -> KeypointDetections:
        self.calls += 1
        cube = head_cube(canonical(image), role, 64, 3.5)
        points = self.pair.landmarks[:COUNT]
        if np.array_equal(image.array, self.pair.moving.array):
            points = self.pair.truth(points)
        random = np.random.default_rng(2 * second + (role == "moving"))
        points = points + random.normal(0, self.noise_mm, points.shape)
        if role == "moving":
            points[: self.outliers] += 60
        turned = points.mean(axis=0) + (points - points.mean(axis=0)) * [-1, -1, 1]
        return KeypointDetections(cube.tensor, cube.world_from_norm, [
            self._detection(cube, turned, 0.1), self._detection(cube, points, 0.2)
        ])

    def _detection(self, cube, points, residual):
        norm = apply_matrix(np.linalg.inv(cube.world_from_norm), points)
        points, one = torch.tensor(norm, dtype=torch.float32), torch.ones(COUNT)
        return Detection(points, one, one, torch.eye(3, 4), residual)


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
)


@pytest.fixture(scope="module")
def pair():
    return make_head_pair(5, spacing_mm=4.0, rotation_deg=100)


def model(pair, **kwargs) -> KeyMorph:
    return KeyMorph(INFO, FakeDetector(pair, **kwargs), mutual_information)


@pytest.fixture
def use(monkeypatch):
    """Put a model into the registry under the name keymorph-brain."""

    def install(chosen):
        real = registry.get_model
        monkeypatch.setattr(
            engine, "get_model", lambda name: chosen if name == "keymorph-brain" else real(name)
        )
        monkeypatch.setattr(
            registry, "get_model", lambda name: chosen if name == "keymorph-brain" else real(name)
        )

    return install


@pytest.fixture
def unjudged(monkeypatch):
    """The images are not looked at for quality, which takes far longer than the fits."""
    monkeypatch.setattr(engine, "assess", lambda *_: Quality({}, "check", "Not judged."))


def register(pair, **options):
    return engine.register(RegistrationRequest(pair.fixed, pair.moving, "keymorph-brain", options))


def error_mm(transform, pair) -> float:
    missed = transform(pair.landmarks) - pair.truth(pair.landmarks)
    return float(np.linalg.norm(missed, axis=1).mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_right_although_a_flipped_view_fits_the_template_better(use, pair, family):
    use(model(pair))
    result = register(pair, transform=family)
    assert error_mm(result.transform, pair) < 2.0
    assert result.quality.numbers["likeness_lead"] > 0
    assert result.quality.numbers["inverse_consistency_mean_mm"] > 0.05  # of a second look
    assert result.fixed_keypoints.inliers.all()


@pytest.mark.usefixtures("unjudged")
def test_an_image_with_itself_gives_exactly_the_identity(use, pair):
    same = replace(pair, moving=pair.fixed)
    chosen = model(same, noise_mm=0.0)
    chosen.detect.pair = replace(pair, truth=lambda points: points, moving=pair.fixed)
    use(chosen)
    for family in FAMILIES:
        transform = register(same, transform=family, smoothing=0.0).transform
        corners = pair.fixed.grid.corners()
        np.testing.assert_allclose(transform(corners), corners, atol=1e-3 * 4.0)


@pytest.mark.usefixtures("unjudged")
def test_robust_fits_shrug_off_wrong_keypoints_and_name_them(use, pair):
    use(model(pair, outliers=OUTLIERS))
    robust = register(pair, robust=True)
    plain = register(pair, robust=False)
    assert error_mm(robust.transform, pair) < 2.0 < error_mm(plain.transform, pair)
    assert not robust.fixed_keypoints.inliers[:OUTLIERS].any()
    assert robust.fixed_keypoints.inliers[OUTLIERS:].all()
    weights = robust.fixed_keypoints.weights
    assert weights[:OUTLIERS].max() < 0.1 * weights[OUTLIERS:].mean()


@pytest.mark.usefixtures("unjudged")
def test_a_sweep_runs_the_network_once_and_equals_single_runs(use, pair):
    chosen = model(pair, noise_mm=3.0)
    use(chosen)
    smoothings = (0.0, 0.1, 10.0, np.inf)
    request = RegistrationRequest(pair.fixed, pair.moving, "keymorph-brain", {"transform": "tps"})
    results = engine.register_sweep(request, smoothings)
    assert chosen.detect.calls == 4  # two images, two looks
    for smoothing, result in zip(smoothings, results, strict=True):
        alone = register(pair, transform="tps", smoothing=smoothing)
        np.testing.assert_allclose(
            result.transform(pair.landmarks), alone.transform(pair.landmarks), atol=1e-6
        )
        assert result.provenance["options"]["smoothing"] == smoothing
    fixed, moving = results[0].fixed_keypoints, results[0].moving_keypoints
    residuals = [
        np.average(
            ((r.transform(fixed.points) - moving.points) ** 2).sum(axis=1), weights=fixed.weights
        )
        for r in results
    ]
    assert residuals[0] < 1e-9
    assert residuals == sorted(residuals)
    affine = fit_affine(fixed.points, moving.points, fixed.weights)
    np.testing.assert_allclose(results[-1].transform(pair.landmarks), affine(pair.landmarks))
    spline = fit_tps(fixed.points, moving.points, fixed.weights, 0.1)
    np.testing.assert_allclose(
        results[1].transform(pair.landmarks), spline(pair.landmarks), atol=1e-6
    )


def test_models_that_know_no_sweep_say_so(pair):
    assert isinstance(model(pair), SweepModel)
    request = RegistrationRequest(pair.fixed, pair.moving, "auto-brain")
    with pytest.raises(OptionError, match="one smoothing at a time"):
        engine.register_sweep(request, (0.1, 1.0))


def test_the_command_writes_one_folder_for_each_smoothing(use, pair, tmp_path):
    use(model(pair))
    for name in ("fixed", "moving"):
        write_image(tmp_path / f"{name}.nrrd", getattr(pair, name))
    arguments = [
        "register", str(tmp_path / "fixed.nrrd"), str(tmp_path / "moving.nrrd"),
        "--model", "keymorph-brain", "--transform", "tps",
    ]
    assert main([*arguments, "--smoothing", "0.1,inf", "-o", str(tmp_path / "out")]) == 0
    for folder, smoothing in (("smoothing-0.1", 0.1), ("smoothing-inf", "Infinity")):
        written = json.loads((tmp_path / "out" / folder / "result.json").read_text())
        assert written["options"]["smoothing"] == smoothing
        assert len(read_markups(tmp_path / "out" / folder / "fixed_keypoints.mrk.json")) == COUNT
    assert main([*arguments, "--smoothing", "0.1", "-o", str(tmp_path / "one")]) == 0
    assert (tmp_path / "one" / "transform.h5").exists()


def test_a_smoothing_that_is_no_number_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["register", "a.png", "b.png", "-o", str(tmp_path), "--smoothing", "0.1;1"])
    assert "numbers with commas" in capsys.readouterr().err


def test_keypoints_that_determine_nothing_are_no_registration(use, pair):
    chosen = model(pair)
    flat = replace(pair, landmarks=np.outer(np.linspace(-40, 40, 400), [1.0, 0, 0]))
    chosen.detect.pair, chosen.detect.noise_mm = flat, 0.0
    use(chosen)
    with pytest.raises(RegistrationError, match="no transform"):
        register(pair)


def test_a_black_image_is_refused(use, pair):
    use(model(pair))
    black = Image(np.zeros_like(pair.moving.array), pair.moving.grid)
    with pytest.raises(RegistrationError, match="moving"):
        register(replace(pair, moving=black))


def test_robust_weights_leave_clean_pairs_almost_alone():
    random = np.random.default_rng(0)
    fixed = random.uniform(-50, 50, (80, 3))
    moving = fixed + random.normal(0, 1, fixed.shape)
    moving[0] += 100
    weights = robust_weights("rigid", fixed, moving, np.ones(80))
    assert weights[0] < 1e-4
    assert np.median(weights) > 0.3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_missing_is_refused():
    assert chosen_device("auto").type == "cpu"
    with pytest.raises(OptionError, match="CUDA"):
        chosen_device("cuda")


def test_the_second_look_sees_the_same_places_from_another_angle():
    from retreg_server.registration.keymorph.detectors import _turned_cube

    random = np.random.default_rng(1)
    grid = Grid((60, 70, 50), np.diag([3.0, 3, 3, 1]))
    image = Image(random.uniform(0.5, 1, (1, *grid.shape)).astype(np.float32), grid)
    volume = canonical(image)
    cube = head_cube(volume, "fixed", 32, 3.0)
    turned = _turned_cube(volume, cube, 3.0)
    middle = apply_matrix(cube.world_from_norm, np.zeros((1, 3)))
    np.testing.assert_allclose(apply_matrix(turned.world_from_norm, np.zeros((1, 3))), middle)
    trace = np.trace(np.linalg.inv(cube.world_from_norm[:3, :3]) @ turned.world_from_norm[:3, :3])
    assert np.degrees(np.arccos((trace - 1) / 2)) == pytest.approx(20)
