"""auto-brain and auto-fundus with KeyMorph's maps: helped where in doubt, never harmed."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from retreg.files import read_image
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration.fundus import auto as fundus_auto
from retreg_server.registration.fundus import global_alignment as fundus_alignment
from retreg_server.registration.fundus.auto import AutoFundus
from retreg_server.registration.keymorph import correspondences, detectors
from retreg_server.registration.keymorph.initial_maps import suggestions
from retreg_server.registration.keymorph.model import KeyMorph, keymorph_brain
from retreg_server.registration.model import Stages
from retreg_server.registration.networks import weights
from retreg_server.registration.volume import brain as brain_auto
from retreg_server.registration.volume import global_alignment as brain_alignment
from retreg_server.registration.volume.brain import AutoBrain
from retreg_server.registration.volume.global_alignment import Shortlist

pytestmark = pytest.mark.usefixtures("equal_pairs_are_aligned_once")

BRAIN_OPTIONS = AutoBrain.info.complete({})
FUNDUS_OPTIONS = AutoFundus.info.complete({"transform": "affine"})


def no_suggestions(*_):
    return [], []


def brain_map(fixed, moving, keypoints="matched") -> np.ndarray:
    options = {**BRAIN_OPTIONS, "keypoints": keypoints}
    found = AutoBrain().estimate(fixed, moving, options, Stages())
    return found.transform.moving_from_fixed


def error_mm(matrix, pair) -> float:
    found = pair.landmarks @ matrix[:3, :3].T + matrix[:3, 3]
    return float(np.linalg.norm(found - pair.truth(pair.landmarks), axis=1).mean())


@pytest.fixture(scope="module", autouse=True)
def short_search():
    """Enough for made-up heads, in a third of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(brain_alignment, "ROTATIONS", 300)
        patch.setattr(brain_alignment, "COPIES", 12)
        yield


@pytest.fixture(scope="module")
def heads():
    return make_head_pair(5, spacing_mm=6.0, rotation_deg=90, moving="t2")


@pytest.fixture(scope="module")
def alone(heads):
    """What auto-brain finds in doubt, but without suggestions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(brain_alignment, "CLEAR_MARGIN", 2.0)
        patch.setattr(brain_auto, "suggestions", no_suggestions)
        return brain_map(heads.fixed, heads.moving)


@pytest.fixture
def always_in_doubt(monkeypatch):
    monkeypatch.setattr(brain_alignment, "CLEAR_MARGIN", 2.0)
    monkeypatch.setattr(fundus_alignment, "CLEAR_LEAD", np.inf)
    monkeypatch.setattr(fundus_alignment, "PLAUSIBLE_SCORE", np.inf)


def test_a_registration_that_settles_does_not_look_with_the_network(heads, monkeypatch):
    doubts, looks = [], []
    monkeypatch.setattr(correspondences, "installed_keymorph", looks.append)

    def overheard(fixed, moving, family, in_doubt):
        doubts.append(in_doubt)
        return suggestions(fixed, moving, family, in_doubt)

    monkeypatch.setattr(brain_auto, "suggestions", overheard)
    assert error_mm(brain_map(heads.fixed, heads.moving), heads) < 3
    assert doubts == [False]
    assert not looks


def test_a_suggestion_wins_where_the_search_went_wrong(heads, monkeypatch):
    def lost(_scene, _family, _turned_deg):
        return Shortlist(np.eye(4)[None], 0.0)

    there = heads.truth.moving_from_fixed
    monkeypatch.setattr(brain_alignment, "search", lost)
    monkeypatch.setattr(brain_auto, "suggestions", no_suggestions)
    assert error_mm(brain_map(heads.fixed, heads.moving), heads) > 10
    monkeypatch.setattr(
        brain_auto, "suggestions", lambda *_: ([there], [np.linalg.inv(there)])
    )
    assert error_mm(brain_map(heads.fixed, heads.moving), heads) < 3


@pytest.mark.usefixtures("always_in_doubt")
def test_wrong_suggestions_change_nothing(heads, alone, monkeypatch):
    assert error_mm(alone, heads) < 3
    flipped = heads.truth.moving_from_fixed @ np.diag([-1.0, 1.0, -1.0, 1.0])
    monkeypatch.setattr(
        brain_auto, "suggestions", lambda *_: ([flipped], [np.linalg.inv(flipped)])
    )
    np.testing.assert_array_equal(brain_map(heads.fixed, heads.moving), alone)


@pytest.mark.parametrize("trouble", ["absent", "damaged"])
def test_without_usable_weights_nothing_is_suggested(trouble, heads, monkeypatch, tmp_path):
    assert len(suggestions(heads.fixed, heads.moving, "affine", True)[0]) > 0
    spoil(trouble, monkeypatch, tmp_path)
    assert suggestions(heads.fixed, heads.moving, "affine", True) == ([], [])


def spoil(trouble, monkeypatch, folder):
    """Make KeyMorph read its weights from a folder without them, or with other bytes in them."""
    if trouble == "absent":
        monkeypatch.setattr(correspondences, "is_shipped", lambda _: False)
        return
    shutil.copytree(weights.FOLDER / "keymorph-brain", folder / "keymorph-brain")
    file = folder / "keymorph-brain" / weights.TENSORS
    stored = bytearray(file.read_bytes())
    stored[-1] ^= 1
    file.write_bytes(stored)
    monkeypatch.setattr(
        detectors,
        "load_network",
        lambda name, build: weights.load_network(name, build, folder),
    )
    fresh = KeyMorph(
        keymorph_brain().info, detectors.BrainKeypointDetector(), keymorph_brain().similarity
    )
    monkeypatch.setattr(correspondences, "installed_keymorph", lambda _: fresh)


@pytest.mark.usefixtures("always_in_doubt")
def test_a_retina_is_found_by_a_suggestion_where_nothing_else_finds_it(monkeypatch):
    pair = make_fundus_pair(3, size=400, rotation_deg=70)
    points = pair.landmarks
    middle = points.mean(axis=0)
    there = affine_near(pair.truth, middle)
    nothing = fundus_alignment.Hypothesis(np.eye(3), 0.0)
    monkeypatch.setattr(fundus_alignment, "searched", lambda *_: [nothing])
    monkeypatch.setattr(
        fundus_auto, "no_suggestions", lambda _: ([there], [np.linalg.inv(there)])
    )
    found = AutoFundus().estimate(pair.fixed, pair.moving, FUNDUS_OPTIONS, Stages())
    missed = np.linalg.norm(found.transform(points) - pair.truth(points), axis=1)
    assert np.median(missed) < 4


def affine_near(truth, middle) -> np.ndarray:
    """The (4, 4) affine that a mapping of the plane is like at a point."""
    matrix = np.eye(4)
    for axis in range(2):
        step = np.zeros(3)
        step[axis] = 20.0
        matrix[:3, axis] = (truth((middle + step)[None])[0] - truth((middle - step)[None])[0]) / 40
    matrix[:3, 3] = truth(middle[None])[0] - matrix[:3, :3] @ middle
    return matrix


@pytest.mark.usefixtures("always_in_doubt")
def test_real_brains_are_registered_no_worse_in_doubt(retreg_data, monkeypatch):
    pair = a_turned_head(retreg_data)
    helped = missed_head(pair, "matched")
    monkeypatch.setattr(brain_auto, "suggestions", no_suggestions)
    assert helped < missed_head(pair, "matched") + 0.1


def test_real_brains_are_registered_no_worse_with_the_network(retreg_data):
    pair = a_turned_head(retreg_data)
    assert missed_head(pair, "network") < missed_head(pair, "matched") + 0.1


def a_turned_head(data):
    """Two contrasts of one head, the second turned, points of it and the matrix of the turn."""
    fixed, moving = (
        read_image(data / f"brain/openms_mni/patient07_{name}.nii.gz") for name in ("T1", "FLAIR")
    )
    turn = np.eye(4)
    turn[:3, :3] = [[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]]
    turned = Image(moving.array, Grid(moving.grid.size, turn @ moving.grid.world_from_index))
    points = fixed.grid.world(np.argwhere(fixed.array[0] > 0)[::997, ::-1].astype(float))
    return fixed, turned, points, turn


def missed_head(pair, keypoints) -> float:
    fixed, turned, points, turn = pair
    difference = brain_map(fixed, turned, keypoints) - turn
    missed = points @ difference[:3, :3].T + difference[:3, 3]
    return float(np.linalg.norm(missed, axis=1).mean())


@pytest.mark.parametrize("name", ["055", "102"])
def test_real_retinas_are_registered_no_worse_with_the_network(name, retreg_data):
    pair = a_real_retina(retreg_data, name)
    alone = missed_retina(pair, "matched")
    assert missed_retina(pair, "network") < alone + 0.2


def a_real_retina(data, name):
    folder = data / "retina/multimodal_landmark_pairs"
    images = [read_image(folder / f"{name}_{role}.png") for role in ("fixed", "moving")]
    rows = np.genfromtxt(folder / f"{name}_landmarks.csv", delimiter=",", names=True, skip_header=1)
    points = [
        np.stack([rows[f"{role}_x"], rows[f"{role}_y"], 0 * rows["fixed_x"]], axis=1)
        for role in ("fixed", "moving")
    ]
    return images, points


def missed_retina(pair, keypoints) -> float:
    images, (points, targets) = pair
    options = {**FUNDUS_OPTIONS, "keypoints": keypoints}
    found = AutoFundus().estimate(*images, options, Stages()).transform
    return float(np.median(np.linalg.norm(found(points) - targets, axis=1)))
