"""What the Slicer module itself costs: python benchmarks/slicer_module.py

Needs slicer-core. Refits the transform of 256 keypoints while one of them is moved, and registers a
pair of 256³ volumes of 16 bits through the server of benchmarks/server.py, whose model does
nothing. Prints the clock and, beside it, the processor time of this process, which other work on
the machine changes less.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import slicer

import server as bench

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "SlicerRetReg"), str(ROOT / "tests" / "slicer")]
POINTS, MOVES, SIDE = 256, 30, 256


def main() -> None:
    """Print the table."""
    from bare_scene import bare_scene

    with bare_scene(slicer) as (scene, _):
        for family in ("rigid", "affine", "tps"):
            moves = refits(scene, family)
            bench.say(f"{f'refit of {POINTS} keypoints, {family}, median':<58}{median(moves)}")
        with null_server() as url:
            first, again = pairs(scene, url)
            bench.say(f"{f'{SIDE}³ pair, everything but the model, first':<58}{first}")
            bench.say(f"{'  the same fixed volume again, best of 5':<58}{again}")


def refits(scene: Any, family: str) -> list[tuple[float, float]]:
    """(clock, processor) seconds of each move of one keypoint."""
    from retreg import Affine, Grid, Image, Keypoints, RegistrationResult
    from retreg.quality import Quality
    from RetRegLib.refit.live_refit import LiveRefit
    from RetRegLib.scene.outcome import remove_outcome, show_outcome
    from RetRegLib.scene.volumes import volume_from_image

    random = np.random.default_rng(3)
    points = np.indices((8, 8, 4)).reshape(3, -1).T * [28.0, 28, 56] + random.uniform(5, 20, 3)
    each = np.ones(POINTS)
    fixed = Keypoints(points, each, each > 0)
    moving = Keypoints(points + random.normal(3, 0.7, points.shape), each, each > 0)
    image = Image(np.zeros((1, 64, 64, 64), np.uint8), Grid((64, 64, 64), np.diag([4.0, 4, 4, 1])))
    nodes = [volume_from_image(image, name, scene) for name in ("fixed", "moving")]
    judged = Quality({}, "accept", "Yes.")
    result = RegistrationResult(Affine.identity(), fixed, moving, judged, {})
    outcome = show_outcome(result, *nodes)
    live = LiveRefit(outcome, family, 0.1)

    def move(number: int) -> None:
        place = np.array(outcome.fixed_keypoints.GetNthControlPointPosition(number))
        outcome.fixed_keypoints.SetNthControlPointPosition(number, *(place + [0.5, -0.5, 0.5]))

    taken = [timed(lambda n=n: move(n)) for n in range(MOVES)]
    live.close()
    remove_outcome(outcome)
    return taken


def pairs(scene: Any, url: str) -> tuple[str, str]:
    """The first registration, and the best of those that follow with the same fixed volume."""
    from retreg import Grid, Image
    from RetRegLib.logic import Registration
    from RetRegLib.scene.volumes import volume_from_image
    from RetRegLib.server.connection import Connection

    random = np.random.default_rng(0)
    grid = Grid((SIDE, SIDE, SIDE), np.eye(4))
    voxels = [random.integers(0, 4000, (1, SIDE, SIDE, SIDE)).astype(np.int16) for _ in range(6)]
    nodes = [volume_from_image(Image(v, grid), f"{n}", scene) for n, v in enumerate(voxels)]
    logic = Registration(connection=Connection(url))
    logic.models()
    taken = [timed(lambda m=moving: logic.register(nodes[0], m, "null")) for moving in nodes[1:]]
    return median(taken[:1]), median([min(taken[1:])])


@contextmanager
def null_server() -> Iterator[str]:
    """The address of a server whose model does nothing."""
    command = [sys.executable, str(Path(__file__).with_name("server.py")), "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """(clock, processor) seconds."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def median(taken: list[tuple[float, float]]) -> str:
    """As the table shows it."""
    clock, processor = np.median(taken, axis=0) * 1000
    return f"{clock:8.0f} ms   processor {processor:6.0f} ms"


if __name__ == "__main__":
    main()
