"""A retinal vessel tree, grown twig by twig from the optic disc.

Every twig steers along the course that retinal vessels take (away from the disc, in arcades around
the fovea), wanders a little, gives off branches and ends where it would run into another vessel of
its own kind. The radii follow Murray's law: at a branching the cubes of the radii add up (Murray,
PNAS 1926).

Retina coordinates: x to the right and y down in units of the field-of-view radius, the fovea near
the origin, the optic disc on the right.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from retreg_server.phantoms.noise import smooth_noise

STEP = 0.012
SMALLEST_RADIUS = 0.0016
EXTENT = 1.75
CELLS_PER_UNIT = 100
TRUNKS = ((1.7, 1.0, 1), (-1.7, 1.0, -1), (0.9, 0.7, 0), (-0.9, 0.7, 0), (2.75, 0.35, 0))
"""Heading at the disc, share of the trunk radius, and for temporal arcades the side (1 is down)."""
FREE, UNTIL_BRANCHING = 0, 0.115


@dataclass(frozen=True, eq=False)
class VesselTree:
    """points: (n, 2) retina coordinates; parents: (n,) index of the point before, -1 at a root;
    radii: (n,); branchings: (m,) indices of the points where a vessel divides.
    """

    points: np.ndarray
    parents: np.ndarray
    radii: np.ndarray
    branchings: np.ndarray


@dataclass(order=True)
class _Twig:
    """A vessel about to grow; the widest of the waiting ones grows first."""

    minus_radius: float
    start: tuple[float, float] = field(compare=False)
    heading: float = field(compare=False)
    parent: int = field(compare=False)
    obedience: float = field(compare=False)
    arcade: int = field(compare=False, default=0)


class _Garden:
    """The tissue while vessels grow in it: what has grown, and who occupies which cell."""

    def __init__(
        self, rng: np.random.Generator, disc: np.ndarray, fovea: np.ndarray, crowding: float
    ) -> None:
        self.rng, self.disc, self.fovea, self.crowding = rng, disc, fovea, crowding
        cells = int(2 * EXTENT * CELLS_PER_UNIT)
        self.owner = np.zeros((cells, cells), dtype=np.int32)
        wander = [smooth_noise(rng, (cells, cells), w) for w in (45.0, 14.0)]
        self.arcade_height = rng.uniform(0.5, 0.68)
        self.wander = 1.5 * wander[0] + 2.2 * wander[1]
        self.points: list[tuple[float, float]] = []
        self.parents: list[int] = []
        self.radii: list[float] = []
        self.branchings: list[int] = []
        self.twigs = 0
        self.waiting: list[_Twig] = []

    def cell(self, x: float, y: float) -> tuple[int, int]:
        return int((y + EXTENT) * CELLS_PER_UNIT), int((x + EXTENT) * CELLS_PER_UNIT)

    def course(self, x: float, y: float) -> float:
        """The heading that vessels prefer at (x, y): from the disc, in arcs around the fovea."""
        away = np.hypot(x - self.disc[0], y - self.disc[1]) + 1e-9
        dx, dy = (x - self.disc[0]) / away, (y - self.disc[1]) / away
        around = np.hypot(x - self.fovea[0], y - self.fovea[1]) + 1e-9
        push = 1.3 * np.exp(-((around / 0.5) ** 2))
        dx += push * (x - self.fovea[0]) / around
        dy += push * (y - self.fovea[1]) / around
        dx -= 0.9 * np.clip((self.disc[0] - x) / 0.5, 0, 1)
        return float(np.arctan2(dy, dx))

    def arcade_course(self, x: float, y: float, side: int) -> float:
        """The heading of a temporal arcade: an ellipse around the fovea that opens at its end."""
        axes = np.array([abs(self.disc[0] - self.fovea[0]), self.arcade_height])
        u, v = (np.array([x, y]) - self.fovea) / axes * (1, side)
        turned = np.clip(np.arctan2(v, u), 0.0, 1.75)
        tangent = np.array([-np.sin(turned), np.cos(turned)]) * axes
        inwards = 1.2 * (1 - np.hypot(u, v)) * np.array([np.cos(turned), np.sin(turned)])
        dx, dy = (tangent + inwards * (turned < 1.75)) * (1, side)
        return float(np.arctan2(dy, dx))

    def grow(self, twig: _Twig) -> None:
        """Let one twig grow to its end; its branches join the waiting ones."""
        self.twigs += 1
        own, radius, heading, parent = self.twigs, -twig.minus_radius, twig.heading, twig.parent
        (x, y), since, side = twig.start, self.rng.uniform(0, 0.08), self.rng.choice((-1, 1))
        trail: list[tuple[int, int]] = []
        while radius > SMALLEST_RADIUS:
            heading += self._turn(x, y, heading, twig)
            x, y = x + STEP * np.cos(heading), y + STEP * np.sin(heading)
            if not self._is_free(x, y, heading, own, len(trail)):
                break
            self.points.append((x, y))
            self.parents.append(parent)
            self.radii.append(radius)
            parent = len(self.points) - 1
            trail.append(self.cell(x, y))
            since += STEP
            radius *= 1 - 0.12 * STEP
            if since > UNTIL_BRANCHING * self.crowding * self.rng.uniform(0.7, 1.6):
                radius = self._branch((x, y), heading, radius, side, parent, twig.obedience)
                since, side = 0.0, -side if self.rng.random() < 0.8 else side
        last = len(self.points) - np.arange(min(len(trail), 24)) - 1
        for fade, point in enumerate(last):
            self.radii[point] *= 0.35 + 0.65 * fade / len(last)
        for row, column in trail:
            self.owner[row, column] = own

    def _turn(self, x: float, y: float, heading: float, twig: _Twig) -> float:
        course = self.arcade_course(x, y, twig.arcade) if twig.arcade else self.course(x, y)
        wish = (course - heading + np.pi) % (2 * np.pi) - np.pi
        wander = self.wander[self.cell(x, y)]
        return float(STEP * (twig.obedience * np.clip(wish, -1, 1) + wander))

    def _is_free(self, x: float, y: float, heading: float, own: int, age: int) -> bool:
        if max(abs(x), abs(y)) > EXTENT - 0.1:
            return False
        if np.hypot(x - self.fovea[0], y - self.fovea[1]) < 0.085:
            return False
        if age < 6:
            return True
        reach = 0.035 * self.crowding
        ways = (heading - 0.7, heading, heading + 0.7)
        ahead = [self.cell(x + reach * np.cos(way), y + reach * np.sin(way)) for way in ways]
        return all(self.owner[cell] in (FREE, own) for cell in ahead)

    def _branch(
        self,
        at: tuple[float, float],
        heading: float,
        radius: float,
        side: int,
        parent: int,
        obedience: float,
    ) -> float:
        """Plan a branch to one side; returns the radius with which the twig goes on."""
        share = self.rng.uniform(0.3, 0.65) if obedience > 2 else self.rng.uniform(0.45, 0.9)
        child = radius * share / (1 + share**3) ** (1 / 3)
        angle = heading + side * self.rng.uniform(0.6, 1.1)
        heapq.heappush(self.waiting, _Twig(-child, at, angle, parent, 0.45 * obedience))
        self.branchings.append(parent)
        return float(radius / (1 + share**3) ** (1 / 3))


def grow_tree(
    rng: np.random.Generator,
    disc: np.ndarray,
    fovea: np.ndarray,
    trunk_radius: float,
    crowding: float,
) -> VesselTree:
    """A tree that leaves the disc (2,), arches around the fovea (2,) and fills the retina.

    crowding: 1 for arteries or veins of a healthy eye; larger is sparser.
    """
    garden = _Garden(rng, disc, fovea, crowding)
    for heading, share, side in TRUNKS:
        x, y = disc + rng.normal(0, 0.012, 2)
        turned = heading + rng.uniform(-0.25, 0.25)
        trunk = _Twig(-trunk_radius * share, (x, y), turned, -1, 5.0, side)
        heapq.heappush(garden.waiting, trunk)
    while garden.waiting:
        garden.grow(heapq.heappop(garden.waiting))
    points, parents = np.array(garden.points), np.array(garden.parents)
    radii = ndimage.gaussian_filter1d(np.array(garden.radii), 1.0)
    return VesselTree(points, parents, radii, np.array(garden.branchings))
