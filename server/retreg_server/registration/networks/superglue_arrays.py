"""The pass of a SuperGlueNet in NumPy; see superpoint_arrays for why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

SMALL = 1e-5  # what torch adds to variances
WAVES = 5  # as in SuperGlueNet
PART = 64  # rows of points that look at others at once: so much stays near the processor


class SuperGlueArrays:
    """See SuperGlueNet, whose parameters by name, float32, it is made of. heads: of attention."""

    def __init__(self, tensors: Mapping[str, np.ndarray], heads: int) -> None:
        self._tensors, self._heads = tensors, heads
        self._scale = float(np.exp(tensors["sharpness"] / 2))
        self._layers = len({name.split(".")[1] for name in tensors if name.startswith("within.")})
        self.no_partner = float(tensors["no_partner"])

    def scores(
        self,
        first: tuple[np.ndarray, np.ndarray],
        second: tuple[np.ndarray, np.ndarray],
    ) -> np.ndarray:
        """Scores (n, m) of pairs of points, as SuperGlueNet gives them.

        first, second: descriptors (n, d) float32 and what is told of the points (n, 3) float32.
        """
        a, b = (self._scale * descriptors for descriptors, _ in (first, second))
        places = [_waves(told) for _, told in (first, second)]
        turns = [told[:, :2] @ self._tensors["frequencies"] for _, told in (first, second)]
        for layer in range(self._layers):
            a, b = (
                self._within(f"within.{layer}", points, *each)
                for points, *each in zip((a, b), places, turns, strict=True)
            )
            a, b = self._across(f"across.{layer}", (a, b), places)
        a, b = (
            self._linear("last", _beside(points, place))
            for points, place in zip((a, b), places, strict=True)
        )
        found: np.ndarray = a @ b.T
        return found

    def _within(
        self, name: str, points: np.ndarray, places: np.ndarray, turns: np.ndarray
    ) -> np.ndarray:
        seen = _beside(points, places)
        asking, asked = (
            _turned(self._by_head(each), turns)
            for each in np.split(self._linear(f"{name}.asked", seen), 2, axis=1)
        )
        told = self._by_head(self._linear(f"{name}.told", seen))
        return self._changed(name, points, seen, _attended(asking, asked, told))

    def _across(
        self, name: str, points: Sequence[np.ndarray], places: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        seen = [_beside(*each) for each in zip(points, places, strict=True)]
        asked, told = (
            [self._by_head(self._linear(f"{name}.{kind}", each)) for each in seen]
            for kind in ("asked", "told")
        )
        return [
            self._changed(
                name, points[own], seen[own], _attended(asked[own], asked[other], told[other])
            )
            for own, other in ((0, 1), (1, 0))
        ]

    def _by_head(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(len(values), self._heads, -1).transpose(1, 0, 2)

    def _changed(
        self, name: str, points: np.ndarray, seen: np.ndarray, learned: np.ndarray
    ) -> np.ndarray:
        flat = learned.transpose(1, 0, 2).reshape(points.shape)
        return points + self._perceptron(f"{name}.change", _beside(seen, flat))

    def _linear(self, name: str, values: np.ndarray) -> np.ndarray:
        found: np.ndarray = values @ self._tensors[f"{name}.weight"].T
        return found + self._tensors[f"{name}.bias"]

    def _perceptron(self, name: str, values: np.ndarray) -> np.ndarray:
        inside = self._linear(f"{name}.0", values)
        inside -= inside.mean(axis=1, keepdims=True)
        inside /= np.sqrt((inside * inside).mean(axis=1, keepdims=True) + SMALL)
        inside = inside * self._tensors[f"{name}.1.weight"] + self._tensors[f"{name}.1.bias"]
        return self._linear(f"{name}.3", np.maximum(inside, 0))


def _attended(asking: np.ndarray, asked: np.ndarray, told: np.ndarray) -> np.ndarray:
    """Means (heads, n, d) of what is told, weighted by how like is what was asked."""
    asking = asking / np.float32(np.sqrt(asked.shape[2]))
    across = np.ascontiguousarray(asked.transpose(0, 2, 1))
    found = np.empty_like(asking)
    for start in range(0, asking.shape[1], PART):
        likeness = asking[:, start : start + PART] @ across
        likeness -= likeness.max(axis=2, keepdims=True)
        np.exp(likeness, out=likeness)
        sums = likeness.sum(axis=2, keepdims=True)
        found[:, start : start + PART] = likeness @ told / sums
    return found


def _turned(values: np.ndarray, angles: np.ndarray) -> np.ndarray:
    real, imaginary = np.split(values, 2, axis=2)
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.concatenate(
        [real * cosine - imaginary * sine, real * sine + imaginary * cosine], axis=2
    )


def _waves(told: np.ndarray) -> np.ndarray:
    lengths = (np.pi / 2 * 2.0 ** np.arange(WAVES)).astype(np.float32)
    phases = (told[:, :2, None] * lengths).reshape(len(told), -1)
    distance = np.linalg.norm(told[:, :2], axis=1, keepdims=True)
    return np.concatenate([told, distance, np.sin(phases), np.cos(phases)], axis=1)


def _beside(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.concatenate([first, second], axis=1)
