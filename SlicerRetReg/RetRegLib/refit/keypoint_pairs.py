"""Which point of the moving list belongs to which one of the fixed list, while both are edited.

Pairs begin as points with equal labels; from then on they are known by the identities that Slicer
gives to points, so labels may be changed. What is deleted, unselected or renamed in one list is
also in the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retreg.messages import Keypoints
from retreg.transforms import Transform
from RetRegLib.scene.markups import keypoints_by_label, keypoints_from_markups, placed
from RetRegLib.scene.nodes import Node, flipped

_SAME_PLACE = 1e-3  # mm, to which files keep points


@dataclass(frozen=True, eq=False)
class PairsNow:
    """Where the pairs are: points and (n,) weights, and inliers where both are selected."""

    labels: tuple[str, ...]
    fixed: Keypoints
    moving: Keypoints

    def __eq__(self, follower: object) -> bool:
        """Whether nothing has changed."""
        return isinstance(follower, PairsNow) and self._facts() == follower._facts()

    def _facts(self) -> tuple[object, ...]:
        points = self.fixed.points.tobytes(), self.moving.points.tobytes()
        return self.labels, *points, self.weights.tobytes()

    @property
    def weights(self) -> np.ndarray:
        """(n,) weights with which they are fitted: 0 for those that are unselected."""
        return np.where(self.fixed.inliers, self.fixed.weights, 0.0)

    def changed_since(self, fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
        """(n,) bool: which pairs are none of the given ones, points (m, 3) LPS mm.

        A pair is known by where its points are, so a new name changes nothing, nor does a file.
        """
        given = np.hstack([fixed, moving])
        now = np.hstack([self.fixed.points, self.moving.points])
        changed = np.ones(len(now), dtype=bool)
        for row, (label, places) in enumerate(zip(self.labels, now, strict=True)):
            guess = int(label) - 1 if label.isdecimal() else -1  # as fill_markups names them
            if 0 <= guess < len(given) and np.abs(given[guess] - places).max() <= _SAME_PLACE:
                changed[row] = False
            elif len(given):
                changed[row] = np.abs(given - places).max(axis=1).min() > _SAME_PLACE
        return changed


class KeypointPairs:
    """The pairs of two point lists."""

    def __init__(self, fixed: Node, moving: Node) -> None:
        self._fixed, self._moving = fixed, moving
        self._pairs: list[tuple[str, str]] = []
        self.begin()

    def begin(self) -> None:
        """Pair the points by their labels, in the order of the fixed list."""
        self._pairs = []
        self._add_new()

    def follow(self, leader: Node) -> None:
        """Do to the other list what was done to leader: delete, select, rename; find new pairs."""
        side = 0 if leader is self._fixed else 1
        follower = self._moving if side == 0 else self._fixed
        leader_index, follower_index = _indices(leader), _indices(follower)
        lost = [pair for pair in self._pairs if pair[side] not in leader_index]
        doomed = [
            follower_index[pair[1 - side]] for pair in lost if pair[1 - side] in follower_index
        ]
        for index in sorted(doomed, reverse=True):
            follower.RemoveNthControlPoint(index)
        self._pairs = [pair for pair in self._pairs if pair not in lost]
        if doomed:
            follower_index = _indices(follower)
        self._pairs = [pair for pair in self._pairs if pair[1 - side] in follower_index]
        for pair in self._pairs:
            _copy_state(leader, leader_index[pair[side]], follower, follower_index[pair[1 - side]])
        self._add_new()

    def complete(self, transform: Transform) -> None:
        """Give each fixed point without a partner one where the transform puts it."""
        known = {pair[0] for pair in self._pairs}
        taken = [*keypoints_by_label(self._fixed), *keypoints_by_label(self._moving)]
        for index in placed(self._fixed):
            identity = self._fixed.GetNthControlPointID(index)
            if identity in known:
                continue
            highest = max((int(label) for label in taken if label.isdecimal()), default=0)
            label = str(highest + 1)
            taken.append(label)
            self._fixed.SetNthControlPointLabel(index, label)
            place = flipped(np.array(self._fixed.GetNthControlPointPosition(index)))
            partner = self._moving.AddControlPoint(flipped(transform(place[None])[0]), label)
            self._pairs.append((identity, self._moving.GetNthControlPointID(partner)))

    def select(self, labels: list[str]) -> None:
        """Let the pairs of these labels count."""
        for node in (self._fixed, self._moving):
            index = keypoints_by_label(node)
            for label in labels:
                node.SetNthControlPointSelected(index[label], True)

    def now(self) -> PairsNow:
        """The pairs whose points are both placed."""
        lists = [keypoints_from_markups(node) for node in (self._fixed, self._moving)]
        rows = [
            {node.GetNthControlPointID(index): row for row, index in enumerate(placed(node))}
            for node in (self._fixed, self._moving)
        ]
        pairs = [pair for pair in self._pairs if pair[0] in rows[0] and pair[1] in rows[1]]
        fixed, moving = (
            _chosen(points, [row[pair[side]] for pair in pairs])
            for side, (points, row) in enumerate(zip(lists, rows, strict=True))
        )
        both = fixed.inliers & moving.inliers
        indices = _indices(self._fixed)
        labels = (self._fixed.GetNthControlPointLabel(indices[pair[0]]) for pair in pairs)
        return PairsNow(
            tuple(labels),
            Keypoints(fixed.points, fixed.weights, both),
            Keypoints(moving.points, moving.weights, both),
        )

    def _add_new(self) -> None:
        known = {identity for pair in self._pairs for identity in pair}
        fixed, moving = keypoints_by_label(self._fixed), keypoints_by_label(self._moving)
        for label, index in fixed.items():
            if label in moving:
                pair = (
                    self._fixed.GetNthControlPointID(index),
                    self._moving.GetNthControlPointID(moving[label]),
                )
                if not known & set(pair):
                    self._pairs.append(pair)


def _indices(node: Node) -> dict[str, int]:
    """The index of every point by its identity."""
    return {node.GetNthControlPointID(n): n for n in range(node.GetNumberOfControlPoints())}


def _copy_state(leader: Node, leader_index: int, follower: Node, follower_index: int) -> None:
    selected, label = (
        leader.GetNthControlPointSelected(leader_index),
        leader.GetNthControlPointLabel(leader_index),
    )
    if follower.GetNthControlPointSelected(follower_index) != selected:
        follower.SetNthControlPointSelected(follower_index, selected)
    if follower.GetNthControlPointLabel(follower_index) != label:
        follower.SetNthControlPointLabel(follower_index, label)


def _chosen(keypoints: Keypoints, rows: list[int]) -> Keypoints:
    index = np.array(rows, dtype=np.int64)
    return Keypoints(
        keypoints.points[index].reshape(-1, 3), keypoints.weights[index], keypoints.inliers[index]
    )
