"""keypoints = network: the network's maps are always tried, and its keypoints are returned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retreg.errors import FileError, OptionError, RegistrationError
from retreg.files import write_image
from retreg.fitting import fit
from retreg.geometry import Grid
from retreg.messages import Keypoints, RegistrationRequest
from retreg.quality import Quality
from retreg.transforms import Affine, Chain, DisplacementField
from retreg_server.cli import main
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration import engine
from retreg_server.registration.fundus.auto import AutoFundus
from retreg_server.registration.keymorph import correspondences
from retreg_server.registration.keymorph.correspondences import KeypointCorrespondences
from retreg_server.registration.keymorph.view_matching import Match
from retreg_server.registration.model import Estimate, Stages
from retreg_server.registration.volume import deformation, global_alignment
from retreg_server.registration.volume.brain import AutoBrain
from retreg_server.registration.volume.deformation import Deformed
from retreg_server.registration.volume.global_alignment import Found, Shortlist

RANDOM = np.random.default_rng(3)
POINTS = RANDOM.uniform(-50, 50, (40, 3))
TRUTH = Affine(np.array([[1.1, 0.1, 0, 5], [-0.1, 0.9, 0, -3], [0, 0, 1, 8], [0, 0, 0, 1.0]]))
SIZE_MM = float(np.sqrt(TRUTH(POINTS).var(axis=0).sum()))
NOTHING = Keypoints(np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool))
AN_ESTIMATE = Estimate(TRUTH, NOTHING, NOTHING, evidence={"own": 1.0})


def seen(offsets=0.0, similarity=1.0) -> Match:
    """What a network sees that errs by offsets (40, 3) in the moving image."""
    moving = TRUTH(POINTS) + offsets
    return Match(POINTS, moving, np.ones(40), similarity, 0.0)


def test_fixed_points_are_as_seen_and_moving_points_lie_on_the_transform():
    described = KeypointCorrespondences([seen()], [seen()]).described(AN_ESTIMATE)
    np.testing.assert_array_equal(described.fixed_keypoints.points, POINTS)
    np.testing.assert_allclose(described.moving_keypoints.points, TRUTH(POINTS))
    np.testing.assert_allclose(described.fixed_keypoints.weights, 1)
    assert described.fixed_keypoints.inliers.all()
    assert described.transform is TRUTH
    assert described.evidence == {"own": 1.0, "network_residual_mm": pytest.approx(0, abs=1e-9)}


def test_the_distance_from_what_the_network_saw_gives_weight_and_state():
    offsets = np.zeros((40, 3))
    offsets[:3, 0] = 0.01 * SIZE_MM, 0.099 * SIZE_MM, 0.3 * SIZE_MM
    match = seen(offsets)
    limit = 0.1 * float(np.sqrt(match.moving.var(axis=0).sum()))
    described = KeypointCorrespondences([match], [match]).described(AN_ESTIMATE)
    for points in (described.fixed_keypoints, described.moving_keypoints):
        expected = (1 + (np.linalg.norm(offsets, axis=1) / limit) ** 2) ** -2.0
        np.testing.assert_allclose(points.weights, expected)
        assert points.inliers.tolist() == [True, True, False, *[True] * 37]


def test_the_view_that_the_transform_supports_is_taken_though_another_seemed_more_likely():
    flipped = Match(POINTS * [-1, -1, 1], TRUTH(POINTS), np.ones(40), 9.0, 0.0)
    described = KeypointCorrespondences([flipped, seen()], []).described(AN_ESTIMATE)
    np.testing.assert_array_equal(described.fixed_keypoints.points, POINTS)
    assert described.fixed_keypoints.inliers.all()


@pytest.mark.parametrize("in_doubt", [True, False])
def test_the_maps_of_the_network_are_candidates_with_or_without_doubt(in_doubt):
    back = Match(TRUTH(POINTS), POINTS, np.ones(40), 1.0, 0.0)
    ahead, home = KeypointCorrespondences([seen()], [back]).suggestions("affine", in_doubt)
    np.testing.assert_allclose(ahead[0], TRUTH.moving_from_fixed, atol=1e-9)
    np.testing.assert_allclose(home[0], TRUTH.inverse.moving_from_fixed, atol=1e-9)


@pytest.fixture(scope="module")
def heads():
    return make_head_pair(5, spacing_mm=6.0, rotation_deg=40, moving="flair")


def search_finds(monkeypatch, matrix):
    """Spare the search over all rotations: it finds this, surely, and the inverse as well."""
    found = iter([matrix, np.linalg.inv(matrix)])
    monkeypatch.setattr(global_alignment, "search", lambda *_: Shortlist(next(found)[None], 1.0))


def brain(pair, keypoints="network", transform="affine") -> Estimate:
    options = AutoBrain.info.complete({"keypoints": keypoints, "transform": transform})
    return AutoBrain().estimate(pair.fixed, pair.moving, options, Stages())


def missed_mm(estimate: Estimate, pair) -> float:
    found = estimate.transform(pair.landmarks) - pair.truth(pair.landmarks)
    return float(np.linalg.norm(found, axis=1).mean())


def refit_mm(estimate: Estimate, family, points, smoothing=0.0) -> float:
    """How far a fit to the keypoints, as Slicer makes it, is from the transform on average."""
    fixed, moving = estimate.fixed_keypoints, estimate.moving_keypoints
    weights = np.where(fixed.inliers, fixed.weights, 0)
    again = fit(family, fixed.points, moving.points, weights, smoothing)
    return float(np.linalg.norm(again(points) - estimate.transform(points), axis=1).mean())


def test_a_brain_comes_with_the_keypoints_of_the_network(heads, monkeypatch):
    search_finds(monkeypatch, heads.truth.moving_from_fixed)
    found = brain(heads)
    assert missed_mm(found, heads) < 1.5
    assert len(found.fixed_keypoints) == 128
    assert found.fixed_keypoints.inliers.mean() > 0.8
    assert 0 < found.evidence["network_residual_mm"] < 8
    assert refit_mm(found, "affine", heads.landmarks) < 1e-6
    assert refit_mm(found, "tps", heads.landmarks, 0.1) < 1e-6


def test_a_map_of_the_network_wins_where_the_search_is_surely_wrong(heads, monkeypatch):
    wrong = heads.truth.moving_from_fixed @ np.diag([-1.0, -1.0, 1.0, 1.0])
    monkeypatch.setattr(global_alignment, "SAME_PLACE_MM", np.inf)
    search_finds(monkeypatch, wrong)
    assert missed_mm(brain(heads, "matched"), heads) > 10
    search_finds(monkeypatch, wrong)
    assert missed_mm(brain(heads), heads) < 1.5


def test_keypoints_of_a_deformable_result_follow_the_deformation(heads, monkeypatch):
    search_finds(monkeypatch, heads.truth.moving_from_fixed)
    monkeypatch.setattr(
        global_alignment, "settle", lambda _scene, _family, found: Found(found[0], 0.5)
    )
    monkeypatch.setattr(
        global_alignment, "finish", lambda _scene, _family, found: (found.matrix, 0.5)
    )
    shift = np.zeros((3, 2, 2, 2))
    shift[1] = 4.0
    field = DisplacementField(shift, Grid((2, 2, 2), np.diag([400.0, 400, 400, 1])))

    def bent(_fixed, _moving, there, home, **_):
        return Deformed(Chain((field, Affine(there))), Chain((field, Affine(home))), {})

    monkeypatch.setattr(deformation, "deform", bent)
    found = brain(heads, transform="deformable")
    fixed, moving = found.fixed_keypoints, found.moving_keypoints
    np.testing.assert_allclose(moving.points, found.transform(fixed.points))
    straight = np.linalg.norm(found.undeformed(fixed.points) - moving.points, axis=1)
    assert straight.max() > 3
    assert found.evidence["network_residual_mm"] > 2


@pytest.mark.parametrize(
    ("family", "refit", "limit_px"),
    [("quadratic", "tps", 1.0), ("deformable", "tps", 1.5)],
)
def test_a_fit_to_the_keypoints_of_a_retina_is_close_to_what_is_shown(family, refit, limit_px):
    pair = make_fundus_pair(2, size=512, rotation_deg=20, elastic_px=2, moving="redfree")
    results = []
    for keypoints in ("matched", "network"):
        options = AutoFundus.info.complete({"transform": family, "keypoints": keypoints})
        results.append(AutoFundus().estimate(pair.fixed, pair.moving, options, Stages()))
    assert missed_mm(results[1], pair) < missed_mm(results[0], pair) + 0.1
    found = results[1]
    assert len(found.fixed_keypoints) == 64
    assert found.fixed_keypoints.inliers.sum() > 20
    inside = pair.landmarks[np.linalg.norm(pair.landmarks - pair.fixed.grid.centre, axis=1) < 150]
    assert refit_mm(found, refit, inside) < limit_px


def test_without_weights_the_network_cannot_be_asked_for(heads, monkeypatch):
    monkeypatch.setattr(correspondences, "installed_keymorph", lambda _: None)
    with pytest.raises(OptionError, match=r"weights of keymorph-brain.*use keypoints = matched\.$"):
        brain(heads)
    pair = make_fundus_pair(2, size=128)
    with pytest.raises(OptionError, match="weights of keymorph-fundus"):
        KeypointCorrespondences.of(pair.fixed, pair.moving, lambda _: None)


@pytest.mark.parametrize("error", [FileError("The hash is wrong."), RegistrationError("Nothing.")])
def test_trouble_of_the_network_is_told_when_its_keypoints_were_asked_for(
    heads, monkeypatch, error
):
    class Troubled:
        def matched(self, *_arguments, **_again):
            raise error

    monkeypatch.setattr(correspondences, "installed_keymorph", lambda _: Troubled())
    with pytest.raises(type(error), match=str(error)):
        brain(heads)


@pytest.mark.parametrize("name", ["auto-brain", "auto-fundus"])
def test_clients_learn_of_the_option_and_a_third_choice_is_refused(name, heads):
    info = engine.get_model(name).info
    (option,) = (each for each in info.options if each.name == "keypoints")
    assert (option.default, option.choices) == ("matched", ("matched", "network"))
    image = heads.fixed if name == "auto-brain" else make_fundus_pair(2, size=128).fixed
    with pytest.raises(OptionError, match="use one of matched, network"):
        engine.register(RegistrationRequest(image, image, name, {"keypoints": "all"}))


def an_answer(heads):
    estimate = replace(AN_ESTIMATE, transform=heads.truth)
    request = RegistrationRequest(heads.fixed, heads.moving, "auto-brain")
    return engine.judged(AutoBrain.info, request, {}, estimate, Stages())


def typed(heads, folder, *more):
    """The command line on the two heads, written into folder."""
    for role in ("fixed", "moving"):
        write_image(folder / f"{role}.nrrd", getattr(heads, role))
    files = (str(folder / f"{role}.nrrd") for role in ("fixed", "moving"))
    return main(["register", *files, "-o", str(folder / "out"), *more])


@pytest.fixture
def unjudged(monkeypatch):
    monkeypatch.setattr(engine, "assess", lambda *_: Quality({}, "check", "Not judged."))


@pytest.mark.usefixtures("unjudged")
def test_the_command_line_passes_the_option_on(heads, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        engine, "register", lambda request, _report: asked.append(request) or an_answer(heads)
    )
    assert typed(heads, tmp_path, "--option", "keypoints=network") == 0
    assert asked[0].options["keypoints"] == "network"


@pytest.mark.usefixtures("unjudged")
def test_the_command_line_passes_the_option_to_a_server(heads, tmp_path, monkeypatch, capsys):
    asked = []

    class FakeClient:
        def __init__(self, *_address, **_token): ...

        def __enter__(self):
            return self

        def __exit__(self, *_exception): ...

        def models(self):
            return (AutoFundus.info, AutoBrain.info)

        def register(self, _fixed, _moving, **options):
            asked.append(options)
            return an_answer(heads)

    monkeypatch.setattr("retreg.client.Client", FakeClient)
    server = ("--server", "http://127.0.0.1:9")
    assert typed(heads, tmp_path, *server, "--option", "keypoints=network") == 0
    assert asked[0]["keypoints"] == "network"
    assert typed(heads, tmp_path, *server, "--option", "model=other") == 2
    assert "auto-brain has no option model" in capsys.readouterr().err


def test_an_option_without_a_value_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["register", "a.png", "b.png", "-o", str(tmp_path), "--option", "keypoints"])
    assert "NAME=VALUE was expected" in capsys.readouterr().err
