"""Refit as a correction: the result stays what it was, but where points were put elsewhere."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from refit_bench import SIGNS, Bench, result_with
from scene_content import FIXED_GRID, field, placed, points_in, result_of

from retreg import Affine, Chain, DisplacementField, Grid

RETINA = Grid.of_picture(500, 420)
INNER = Grid((200, 160, 1), placed(np.eye(3), (1, 1, 1), (150, 130, 0)))


def bent(of: Any) -> DisplacementField:
    lattice = RETINA.coarsened(10)
    x = lattice.lattice()
    return DisplacementField((of(x) - x).T.reshape(3, *lattice.shape), lattice)


def wavy(x: np.ndarray) -> np.ndarray:
    return x + np.stack([7 * np.sin(x[:, 1] / 60), 5 * np.cos(x[:, 0] / 50), 0 * x[:, 0]], axis=1)


def quadratic(x: np.ndarray) -> np.ndarray:
    return x + np.stack([4e-5 * x[:, 0] * x[:, 1], -5e-5 * x[:, 0] ** 2, 0 * x[:, 0]], axis=1)


def retina(scene: Any, transform: Any, **how: Any) -> Bench:
    result = result_of(transform, points_in(INNER, 20))
    return Bench(scene, result, RETINA, "correction", **how)


@pytest.mark.parametrize("kind", ["deformable", "quadratic", "affine after a field"])
@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_a_point_dragged_by_5_px_is_met_and_what_is_150_px_away_stays(
    scene: Any, kind: str, which: str
) -> None:
    transform = {
        "deformable": bent(wavy),
        "quadratic": bent(quadratic),
        "affine after a field": Chain((bent(wavy), Affine(np.diag([1.1, 0.9, 1, 1])))),
    }[kind]
    bench = retina(scene, transform)
    probes = RETINA.lattice(19)
    before = bench.shown(probes)
    points = getattr(bench, which)
    start = np.array(points.GetNthControlPointPositionWorld(7)) * SIGNS
    bench.begin(points)
    for share in (0.3, 0.6, 1.0):
        bench.drag(points, 7, start + share * np.array([3.0, -4, 0]))
    bench.end(points)
    fixed, moving, _ = bench.pairs()
    np.testing.assert_allclose(bench.shown(fixed[7:8]), moving[7:8], atol=0.1)
    change = np.linalg.norm(bench.shown(probes) - before, axis=1)
    away = np.linalg.norm(probes - fixed[7], axis=1)
    assert change[away > 150].max() <= 0.1
    assert change[away < 15].max() > 2
    edited = json.loads(bench.outcome.provenance.GetText())["edited"]
    assert edited["transform"] == "correction"
    assert edited["reach_mm"] == pytest.approx(60.0)
    assert bench.live.refit.verdict.verdict == "check"


def test_the_reach_is_set_in_place_and_what_lies_beyond_it_stays(scene: Any) -> None:
    bench = retina(scene, bent(wavy))
    probes = RETINA.lattice(11)
    before = bench.shown(probes)
    bench.move(bench.fixed, 7, (4, 0, 0))
    away = np.linalg.norm(probes - bench.pairs()[0][7], axis=1)
    moved = []
    for reach in (30.0, 90.0, 140.0):
        bench.live.set_reach(reach)
        change = np.linalg.norm(bench.shown(probes) - before, axis=1)
        np.testing.assert_allclose(change[away > reach], 0, atol=1e-5)
        moved.append(int((change > 0.1).sum()))
    assert moved[0] < moved[1] < moved[2]


def test_two_dragged_points_are_both_met_and_one_put_back_counts_no_longer(scene: Any) -> None:
    bench = retina(scene, bent(wavy))
    bench.move(bench.fixed, 7, (4, 0, 0))
    bench.move(bench.moving, 9, (0, 3, 0))
    fixed, moving, _ = bench.pairs()
    np.testing.assert_allclose(bench.shown(fixed[[7, 9]]), moving[[7, 9]], atol=0.1)
    bench.move(bench.fixed, 7, (-4, 0, 0))
    bench.move(bench.moving, 9, (0, -3, 0))
    assert not bench.outcome.is_edited
    assert bench.live.refit.verdict is bench.outcome.result.quality


def test_what_was_not_moved_has_no_say(scene: Any) -> None:
    """Keypoints that fit badly bend nothing, whether they are deleted, renamed or unselected."""
    bench = Bench(scene, result_with(20), FIXED_GRID, "correction")
    bench.fixed.RemoveNthControlPoint(5)
    bench.fixed.SetNthControlPointLabel(6, "optic disc")
    bench.moving.SetNthControlPointSelected(8, False)
    assert bench.moving.GetNumberOfControlPoints() == 19
    assert not bench.outcome.is_edited


def test_an_outlier_that_is_dragged_counts_and_can_be_unselected_again(scene: Any) -> None:
    bench = retina(scene, bent(wavy))
    assert not bench.fixed.GetNthControlPointSelected(0)
    bench.move(bench.fixed, 0, (3, 3, 0))
    assert bench.fixed.GetNthControlPointSelected(0)
    fixed, moving, _ = bench.pairs()
    np.testing.assert_allclose(bench.shown(fixed[:1]), moving[:1], atol=0.1)
    bench.moving.SetNthControlPointSelected(0, False)
    assert not bench.outcome.is_edited


def test_a_point_that_is_added_gets_a_partner_where_the_result_puts_it(scene: Any) -> None:
    bench = retina(scene, bent(wavy))
    place = np.array([[260.0, 200, 0]])
    bench.fixed.AddControlPoint(*(place[0] * SIGNS), "by a script")
    assert len(bench.live.refit.labels) == 20
    bench.fixed.RemoveNthControlPoint(20)
    bench.live.expect_points(True)
    bench.fixed.AddControlPoint(*(place[0] * SIGNS), "fixed keypoints-21")
    assert bench.live.refit.labels[-1] == "21"
    partner = np.array(bench.moving.GetNthControlPointPosition(20)) * SIGNS
    np.testing.assert_allclose(partner[None], wavy(place), atol=0.2)
    bench.move(bench.moving, 20, (4, -3, 0))
    fixed, moving = bench.pairs_of(20)
    np.testing.assert_allclose(bench.shown(fixed), moving, atol=0.1)


def test_neighbours_put_into_each_others_place_leave_the_last_transform_and_a_sentence(
    scene: Any,
) -> None:
    bench = retina(scene, bent(wavy))
    bench.move(bench.fixed, 7, (1, 0, 0))
    kept = bench.shown(RETINA.lattice(31))
    partner = np.array(bench.fixed.GetNthControlPointPosition(7)) + (2, 0, 0)
    bench.fixed.SetNthControlPointPosition(8, *partner)
    assert "would fold between them" in bench.live.refit.problem
    np.testing.assert_array_equal(bench.shown(RETINA.lattice(31)), kept)


def test_a_drag_across_half_the_picture_does_not_fold(scene: Any) -> None:
    bench = retina(scene, bent(quadratic))
    bench.move(bench.fixed, 7, (90, 40, 0))
    assert bench.live.refit.reach_mm > bench.live.reach_mm
    assert bench.live.refit.verdict.numbers["folding"] == 0
    fixed, moving, _ = bench.pairs()
    np.testing.assert_allclose(bench.shown(fixed[7:8]), moving[7:8], atol=0.1)


def test_reset_takes_back_points_reach_and_correction(scene: Any) -> None:
    bench = retina(scene, bent(wavy))
    probes = RETINA.lattice(40)
    before = bench.shown(probes)
    bench.move(bench.fixed, 7, (5, 0, 0))
    bench.live.set_reach(33.0)
    bench.live.reset()
    np.testing.assert_array_equal(bench.shown(probes), before)
    assert bench.live.reach_mm == pytest.approx(60.0)


def test_the_warped_image_is_that_of_the_corrected_transform(scene: Any, slicer: Any) -> None:
    from RetRegLib.scene.outcome import warp_again

    bench = retina(scene, bent(quadratic))
    before = slicer.util.arrayFromVolume(bench.outcome.warped).astype(float)
    bench.move(bench.fixed, 7, (5, 0, 0))
    warp_again(bench.outcome)
    after = slicer.util.arrayFromVolume(bench.outcome.warped).astype(float)
    x, y, _ = np.rint(bench.pairs()[0][7]).astype(int)
    near = (slice(None), slice(y - 12, y + 12), slice(x - 12, x + 12))
    assert np.abs(after[near] - before[near]).max() > 10
    assert np.abs(after[:, :, :40] - before[:, :, :40]).max() <= 1


def test_a_volume_is_corrected_in_three_dimensions(scene: Any) -> None:
    bench = Bench(
        scene, result_of(field(), points_in(FIXED_GRID, 12)), FIXED_GRID, "correction", reach_mm=12
    )
    before = bench.shown(bench.probes)
    bench.move(bench.moving, 6, (1, 2, -1.5))
    fixed, moving, _ = bench.pairs()
    np.testing.assert_allclose(bench.shown(fixed[6:7]), moving[6:7], atol=0.05)
    away = np.linalg.norm(bench.probes - fixed[6], axis=1)
    change = np.abs(bench.shown(bench.probes) - before).max(axis=1)
    assert change[away > 12].max() <= 1e-6
    assert change[away < 10].max() > 0.05


def test_a_second_refit_goes_on_with_the_correction_of_the_first(scene: Any) -> None:
    from RetRegLib.refit.live_refit import LiveRefit

    bench = retina(scene, Chain((bent(wavy), Affine(np.diag([1.2, 0.8, 1, 1])))))
    bench.move(bench.fixed, 7, (4, 0, 0))
    bench.live.close()
    again = LiveRefit(bench.outcome, "correction", 0.1, bench.told.append)
    assert again.refit.verdict.verdict == "check"
    bench.move(bench.fixed, 9, (0, 3, 0))
    fixed, moving, _ = bench.pairs()
    np.testing.assert_allclose(bench.shown(fixed[[7, 9]]), moving[[7, 9]], atol=0.1)
