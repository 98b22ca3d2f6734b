"""Where views lie at once: the least squares, what contradicts, and the middle."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from retreg.geometry import Grid
from retreg.transforms import Chain
from retreg_server.mosaic import adjustment
from retreg_server.mosaic.adjustment import BEND, CAUCHY, STRETCH, Seam, adjusted
from retreg_server.mosaic.consistency import contradictory, middle
from retreg_server.mosaic.plane import LINEAR, Placed, Plane

LOOP = ((0, 1), (1, 2), (2, 3), (3, 0), (0, 2))


def truths(rng, planes, bend=0.01):
    """Random maps to the plane of the first view, which stays."""
    maps = [planes[0].unmoved]
    for number, plane in enumerate(planes[1:], start=1):
        angle, radius = rng.uniform(-0.5, 0.5), plane.unmoved.radius
        turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        if plane.is_mirrored:
            turned = turned @ np.diag([-1.0, 1.0])
        shift = planes[0].centre + 150 * np.array([np.cos(number), np.sin(number)])
        linear = turned * rng.uniform(0.9, 1.1) * radius
        bends = rng.normal(0, bend * radius, (2, 3))
        maps.append(plane.quadratic(np.column_stack([shift, linear, bends])))
    return maps


def seams_of(rng, planes, maps, pairs, noise=0.0, count=40):
    """Points of the first view of each pair, and where the second shows them."""
    seams = []
    for i, j in pairs:
        first = rng.uniform(0, 1, (9 * count, 2)) * 2 * planes[i].centre
        placed = [Placed(maps[n], planes[n], planes[0]) for n in (i, j)]
        there = Chain((placed[0], placed[1].view_from_mosaic))
        second = planes[j].points(there(planes[i].world(first)))
        kept = np.flatnonzero(((second > 0) & (second < 2 * planes[j].centre)).all(axis=1))[:count]
        first, second = first[kept], second[kept]
        second += rng.normal(0, 1, second.shape) * noise
        seams.append(Seam(i, j, np.stack([first, second]), rng.uniform(0.3, 1, len(kept))))
    return seams


def four_planes(kind="plain"):
    grids = [Grid.of_picture(300, 260) for _ in range(4)]
    if kind == "scaled":
        grids = [Grid((300, 260, 1), np.diag([0.02, 0.02, 1, 1])) for _ in range(4)]
    if kind == "mirrored":
        grids[2] = Grid((300, 260, 1), np.diag([-1.0, 1, 1, 1]))
    return [Plane(grid) for grid in grids]


@pytest.mark.parametrize("kind", ["plain", "mirrored"])
def test_views_return_to_where_they_were(kind):
    rng = np.random.default_rng(0)
    planes = four_planes(kind)
    maps = truths(rng, planes)
    found = adjusted(planes, seams_of(rng, planes, maps, LOOP), 0)
    for plane, one, other in zip(planes, maps, found, strict=True):
        corners = plane.points(plane.grid.corners())
        assert np.abs(one(corners) - other(corners)).max() < 0.1


def test_the_adjustment_is_what_an_independent_optimiser_finds(monkeypatch):
    monkeypatch.setattr(adjustment, "ROUNDS", 200)
    monkeypatch.setattr(adjustment, "STILL", 1e-12)
    rng = np.random.default_rng(1)
    planes = four_planes()
    seams = seams_of(rng, planes, truths(rng, planes), LOOP, noise=0.7)
    seams[1].points[1, :4] += 30.0
    found = adjusted(planes, seams, 0)
    noise = 1.4826 * np.median(np.concatenate([seam.misses(found) for seam in seams]))
    radius, cut = planes[0].unmoved.radius, CAUCHY * noise

    def costs(values):
        every = values.reshape(3, 2, 6)
        maps = [planes[0].unmoved, *(planes[1].quadratic(each) for each in every)]
        missed = [
            np.sqrt(seam.weights * np.log1p((seam.misses(maps) / cut) ** 2)) * cut for seam in seams
        ]
        bends = every[:, :, LINEAR:] * noise / (BEND * radius)
        apart = np.stack([every[:, 0, 1] - every[:, 1, 2], every[:, 0, 2] + every[:, 1, 1]])
        apart = apart * noise / (STRETCH * radius)
        return np.concatenate([*missed, bends.ravel(), apart.ravel()])

    start = np.concatenate([each.coefficients.ravel() for each in found[1:]])
    solution = least_squares(
        costs, start + rng.normal(0, 2, start.shape), xtol=1e-15, ftol=1e-15, gtol=1e-15
    )
    assert np.abs(solution.x - start).max() < 0.01
    assert np.abs(start).max() > 100


def test_points_that_are_wrong_have_no_say():
    rng = np.random.default_rng(2)
    planes = four_planes()
    maps = truths(rng, planes)
    seams = seams_of(rng, planes, maps, LOOP, noise=0.3)
    for seam in seams:
        seam.points[1, ::5] += rng.uniform(-80, 80, seam.points[1, ::5].shape)
    found = adjusted(planes, seams, 0)
    errors = [
        np.linalg.norm(one(seam.points[0]) - other(seam.points[0]), axis=1)
        for seam in seams
        for one, other in [(maps[seam.first], found[seam.first])]
    ]
    assert np.median(np.concatenate(errors[1:])) < 0.5


def test_without_bends_maps_are_affine():
    rng = np.random.default_rng(3)
    planes = four_planes()
    found = adjusted(planes, seams_of(rng, planes, truths(rng, planes), LOOP), 0, bends=False)
    assert not any(each.coefficients[:, LINEAR:].any() for each in found)


def test_a_placed_view_goes_there_and_back():
    rng = np.random.default_rng(4)
    planes = four_planes("scaled")
    placed = Placed(truths(rng, planes)[2], planes[2], planes[0])
    points = planes[2].grid.lattice(20)
    there = placed(points)
    assert np.abs(there - points).max() > 1
    assert np.abs(placed.view_from_mosaic(there) - points).max() < 0.02 * 0.05


@pytest.mark.parametrize("wrong", range(len(LOOP)))
def test_a_pair_that_contradicts_two_loops_is_found(wrong):
    rng = np.random.default_rng(wrong)
    planes = four_planes()
    pairs = (*LOOP, (1, 3))
    seams = seams_of(rng, planes, truths(rng, planes), pairs, noise=0.5)
    seams[wrong].points[1] = seams[wrong].points[1] @ np.array([[0.7, 0.7], [-0.7, 0.7]]) + 60
    assert contradictory(planes, seams, [0.9] * len(pairs), 0) == [wrong]


def test_two_wrong_pairs_are_found():
    rng = np.random.default_rng(5)
    planes = [*four_planes(), *four_planes()[:2]]
    pairs = [(i, j) for i in range(6) for j in range(i)]
    seams = seams_of(rng, planes, truths(rng, planes), pairs, noise=0.5)
    for wrong in (3, 10):
        seams[wrong].points[1] += rng.uniform(40, 80, 2)
    assert contradictory(planes, seams, [0.9] * len(pairs), 0) == [3, 10]


def test_in_a_single_loop_the_pair_with_the_least_evidence_gives_way():
    rng = np.random.default_rng(7)
    planes = four_planes()[:3]
    seams = seams_of(rng, planes, truths(rng, planes), ((0, 1), (1, 2), (0, 2)), noise=0.5)
    seams[2].points[1] += (90, -70)
    assert contradictory(planes, seams, [0.9, 0.9, 0.5], 0) == [2]


def test_pairs_that_are_right_do_not_contradict_each_other():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        planes = four_planes()
        seams = seams_of(rng, planes, truths(rng, planes), LOOP, noise=1.0)
        assert contradictory(planes, seams, [0.8] * len(LOOP), 0) == []


def test_the_middle_is_nearest_to_the_farthest():
    assert middle(6, [(0, 1), (1, 2), (2, 3), (3, 4)]) == 2
    assert middle(5, [(4, 0), (4, 1), (4, 2), (2, 3)]) in (2, 4)
    assert middle(5, [(3, 4)]) in (3, 4)
