"""What KeyMorph offers to other models, with and without weights."""

from __future__ import annotations

import numpy as np
import pytest

from retreg.errors import FileError, RegistrationError
from retreg.fitting import fit_affine
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.registration.keymorph import correspondences as hook
from retreg_server.registration.keymorph.view_matching import Match
from retreg_server.registration.networks.weights import is_shipped

RANDOM = np.random.default_rng(8)
VOLUME = Image(RANDOM.uniform(size=(1, 8, 8, 8)), Grid((8, 8, 8), np.eye(4)))
PICTURE = Image(RANDOM.uniform(size=(1, 1, 8, 8)), Grid.of_picture(8, 8))


def a_match(shift=0.0, similarity=1.0, noise=0.0) -> Match:
    fixed = np.random.default_rng(1).uniform(-50, 50, (40, 3))
    moving = fixed @ np.diag([1.1, 0.9, 1.0]) + [shift, 0, 0]
    moving = moving + np.random.default_rng(2).normal(0, noise, moving.shape)
    return Match(fixed, moving, np.ones(40), similarity, 0.0)


class FakeModel:
    def __init__(self, found):
        self.found = found

    def matched(self, _fixed, _moving, _options, _watch, second):
        if isinstance(self.found, Exception):
            raise self.found
        return self.found[::-1] if second else self.found


@pytest.mark.parametrize("image", [VOLUME, PICTURE])
def test_without_weights_there_are_no_candidates(image, monkeypatch, tmp_path):
    monkeypatch.setattr(hook, "is_shipped", lambda name: is_shipped(name, tmp_path))
    assert hook.keymorph_candidates(image, image) == []


@pytest.mark.parametrize("error", [RegistrationError("No head."), FileError("Wrong hash.")])
def test_trouble_leaves_the_other_model_on_its_own(error, monkeypatch):
    monkeypatch.setattr(hook, "installed_keymorph", lambda _: FakeModel(error))
    assert hook.keymorph_candidates(VOLUME, VOLUME) == []


def test_damaged_metadata_leaves_the_other_model_on_its_own(monkeypatch):
    def damaged(_image):
        raise FileError("The weights are not used.")

    monkeypatch.setattr(hook, "installed_keymorph", damaged)
    assert hook.keymorph_candidates(VOLUME, VOLUME) == []


def test_candidates_are_the_affine_maps_of_different_matches(monkeypatch):
    found = [a_match(0), a_match(0.5), a_match(40), a_match(80), a_match(120), a_match(0, -np.inf)]
    monkeypatch.setattr(hook, "installed_keymorph", lambda _: FakeModel(found))
    matrices = hook.keymorph_candidates(VOLUME, VOLUME)
    assert [m[0, 3] for m in matrices] == pytest.approx([0, 40, 80])
    expected = fit_affine(found[0].fixed, found[0].moving).moving_from_fixed
    np.testing.assert_allclose(matrices[0], expected, atol=1e-9)


def test_candidates_belong_to_the_family_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(hook, "installed_keymorph", lambda _: FakeModel([a_match()]))
    (rigid,) = hook.keymorph_candidates(VOLUME, VOLUME, "rigid")
    np.testing.assert_allclose(rigid[:3, :3] @ rigid[:3, :3].T, np.eye(3), atol=1e-9)


def test_matches_that_determine_nothing_are_passed_over(monkeypatch):
    line = np.outer(np.arange(40.0), [1, 0, 0])
    found = [Match(line, line, np.ones(40), 2.0, 0.0), a_match(7)]
    monkeypatch.setattr(hook, "installed_keymorph", lambda _: FakeModel(found))
    assert [m[0, 3] for m in hook.keymorph_candidates(VOLUME, VOLUME)] == pytest.approx([7])
