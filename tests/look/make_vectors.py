"""Writes vectors.json, the fits that Python and the page must agree on: run after a change of them.

python tests/look/make_vectors.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from retreg.fitting import fit
from retreg.local_correction import unfolded_correction

FILE = Path(__file__).with_name("vectors.json")
ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]


def point_sets() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Fixed and moving points (n, 3) and weights (n,): pictures, volumes, tilted planes."""
    rng = np.random.default_rng(7)

    def bent(fixed: np.ndarray, axes: int) -> np.ndarray:
        moving = fixed @ (np.eye(3) + 0.1 * rng.normal(size=(3, 3))).T + rng.uniform(-30, 30, 3)
        moving += rng.normal(size=fixed.shape) * 3
        moving[:, axes:] = fixed[:, axes:]
        return moving

    picture = np.pad(rng.uniform(0, 900, (40, 2)), ((0, 0), (0, 1)))
    volume = rng.uniform(-80, 80, (25, 3))
    few = np.pad(rng.uniform(0, 500, (4, 2)), ((0, 0), (0, 1)))
    tilted = picture[:20] @ ROTATION.T
    weights = rng.uniform(0.2, 2, 40)
    weights[::7] = 0
    return {
        "picture": (picture, bent(picture, 2), weights),
        "volume": (volume, bent(volume, 3), np.ones(25)),
        "four points": (few, bent(few, 2), np.ones(4)),
        "tilted plane": (tilted, bent(picture[:20], 2) @ ROTATION.T, np.ones(20)),
        "plane to space": (picture[:12], bent(picture[:12], 3), weights[1:7].repeat(2)),
    }


def fit_cases() -> list[dict]:
    """One for each point set, family and smoothing."""
    cases = []
    ways = [("rigid", 0.0), ("similarity", 0.0), ("affine", 0.0)]
    ways += [("tps", smoothing) for smoothing in (0.0, 0.05, 3.0)]
    for name, (fixed, moving, weights) in point_sets().items():
        probes = np.vstack([fixed[:3] + 1.5, fixed.mean(axis=0)[None] * 1.7])
        for family, smoothing in ways:
            given = {"fixed": fixed, "moving": moving, "weights": weights, "probes": probes}
            cases.append(
                {
                    "name": f"{name}, {family}, {smoothing:g}",
                    **{key: np.round(value, 9).tolist() for key, value in given.items()},
                    "family": family,
                    "smoothing": smoothing,
                }
            )
    return cases


def correction_cases() -> list[dict]:
    """One, several, near and far points; some need a wider reach than was asked for."""
    rng = np.random.default_rng(3)
    cases = []
    for name, count, axes, reach, shift in (
        ("one point", 1, 2, 100.0, 8.0),
        ("one point far", 1, 2, 30.0, 60.0),
        ("several", 6, 2, 80.0, 5.0),
        ("near ones that go apart", 5, 2, 200.0, 25.0),
        ("volume", 8, 3, 25.0, 4.0),
    ):
        points, shifts = np.zeros((2, count, 3))
        points[:, :axes] = rng.uniform(0, 400 if axes == 2 else 100, (count, axes))
        shifts[:, :axes] = rng.uniform(-shift, shift, (count, axes))
        probes = np.vstack([points + 5.0, points, points + 2 * reach])
        given = {"points": points, "shifts": shifts, "probes": probes}
        rounded = {key: np.round(value, 9).tolist() for key, value in given.items()}
        cases.append({"name": name, **rounded, "reach": reach})
    return cases


def fit_answer(case: dict) -> list[list[float]]:
    """Where Python takes the probes of a case."""
    fixed, moving, weights, probes = (
        np.array(case[key]) for key in ("fixed", "moving", "weights", "probes")
    )
    return fit(case["family"], fixed, moving, weights, case["smoothing"])(probes).tolist()


def correction_answer(case: dict) -> dict:
    """Where Python takes the probes of a case, the reach it needs, and the smallest determinant."""
    points, shifts = np.array(case["points"]), np.array(case["shifts"])
    correction = unfolded_correction(points, shifts, case["reach"])
    return {
        "places": correction(np.array(case["probes"])).tolist(),
        "reach": correction.reach_mm,
        "smallest": correction.smallest_determinant(),
    }


def main() -> None:
    """Write the file anew."""
    fits = [{**case, "expected": fit_answer(case)} for case in fit_cases()]
    corrections = [{**case, "expected": correction_answer(case)} for case in correction_cases()]
    FILE.write_text(json.dumps({"fits": fits, "corrections": corrections}) + "\n")


if __name__ == "__main__":
    main()
