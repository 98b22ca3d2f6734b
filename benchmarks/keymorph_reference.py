# ruff: noqa: T201 - a script that prints its result
"""Times PyPI's keymorph 2.0.1 against retreg on the same images, in one run on one machine.

    python benchmarks/keymorph_reference.py [--size 256] [--points 128 512] [--folder DIR]

keymorph is installed into a virtual environment of its own, which borrows torch and its like from
the environment that runs this script; retreg never depends on it. Every figure comes from a
process of its own, so that its peak memory is its own too. The reference network is untrained, as
no weights are published with the package; ours is the shipped one, or an untrained one of the same
build where there is none. Neither matters for time or memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import site
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

REQUIREMENTS = ("keymorph==2.0.1", "h5py", "matplotlib", "nibabel")
SMOOTHING = 0.01
Measured = dict[str, float]


def main() -> None:
    """Install, run every stage, print the table and write it beside the environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="voxels along each side")
    parser.add_argument("--points", type=int, nargs="+", default=[64, 128, 512])
    parser.add_argument("--skip-above-gb", type=float, default=14.0,
                        help="reference splines that would need more memory are not run")
    parser.add_argument("--folder", type=Path, default=Path(".keymorph-reference"))
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        print(json.dumps(_run_stage(args.stage, args.images)))
        return
    python = _environment(args.folder)
    with tempfile.TemporaryDirectory() as temporary:
        images = Path(temporary)
        _make_images(images, args.size)
        rows = [_compared("identity", python, images), _compared("keypoints", python, images),
                _compared("affine", python, images)]
        for count in args.points:
            needed = 5 * count * args.size**3 / 1e9  # measured: 6.8 GB at 64 points and 256^3
            spline = f"spline-{count}"
            rows.append(_compared(spline, python if needed <= args.skip_above_gb else None, images))
    table = _table(rows)
    (args.folder / f"results-{args.size}.md").write_text(table, encoding="utf-8")
    print(table)


def _environment(folder: Path) -> Path:
    """The interpreter of the reference's environment, made on first use."""
    python = folder.absolute() / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", *REQUIREMENTS,
                   "contourpy", "cycler", "fonttools", "kiwisolver", "pyparsing",
                   "python-dateutil", "six", "packaging"]
        subprocess.run(command, check=True)
        packages = next(folder.glob("lib/python3*/site-packages"))
        ours = [path for path in site.getsitepackages() if Path(path).is_dir()]
        (packages / "borrowed.pth").write_text("\n".join(ours), encoding="utf-8")
    return python


def _make_images(folder: Path, size: int) -> None:
    """A made-up head in two contrasts, as float32 arrays of size^3 at 1 mm (or coarser)."""
    from retreg.geometry import Grid
    from retreg.resample import resample
    from retreg.transforms import Affine
    from retreg_server.phantoms.head import make_head_pair

    pair = make_head_pair(1, spacing_mm=2.0, rotation_deg=20)
    for name, image in (("fixed", pair.fixed), ("moving", pair.moving)):
        spacing = 256.0 / size
        matrix = np.diag([spacing, spacing, spacing, 1.0])
        matrix[:3, 3] = image.grid.centre - spacing * (size - 1) / 2
        cube = resample(image, Affine.identity(), Grid((size, size, size), matrix))
        np.save(folder / f"{name}.npy", (cube.array[0] / cube.array.max()).astype(np.float32))


def _compared(stage: str, python: Path | None, images: Path) -> dict[str, object]:
    return {
        "stage": stage,
        "keymorph": _measured(python, f"keymorph:{stage}", images) if python else None,
        "retreg": _measured(Path(sys.executable), f"retreg:{stage}", images),
    }


def _measured(python: Path, stage: str, images: Path) -> Measured | None:
    """The figures of a stage in a process of its own; None when it was killed or failed."""
    command = [str(python), __file__, "--stage", stage, "--images", str(images)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{stage} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _run_stage(stage: str, images: Path) -> Measured:
    package, _, name = stage.partition(":")
    family, _, count = name.partition("-")
    stages: dict[str, Callable[[Path, int], Measured]] = {
        "keymorph:identity": _their_identity,
        "keymorph:keypoints": _their_keypoints,
        "keymorph:affine": _their_affine,
        "keymorph:spline": _their_spline,
        "retreg:identity": _our_identity,
        "retreg:keypoints": _our_keypoints,
        "retreg:affine": _our_affine,
        "retreg:spline": _our_spline,
    }
    found = stages[f"{package}:{family}"](images, int(count or 128))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**found, "peak_gb": peak}


def _timed(work: Callable[[], object]) -> Measured:
    start, used = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - used}


def _points(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Fixed and moving points (count, 3), from -1 to 1: smooth and random displacements."""
    random = np.random.default_rng(0)
    fixed = random.uniform(-0.8, 0.8, (count, 3))
    smooth = 0.03 * np.sin(3 * fixed[:, [1, 2, 0]])
    return fixed, fixed + smooth + random.normal(0, 0.008, fixed.shape)


def _their_model(keypoints: int = 128) -> Any:
    import torch
    from keymorph.model import KeyMorph
    from keymorph.unet3d.model import TruncatedUNet3D

    torch.manual_seed(0)
    net = TruncatedUNet3D(1, keypoints, 1, False, 32, "gcr", 8, 4, False, 1)
    return KeyMorph(net, keypoints, 3).eval()


def _their_images(images: Path) -> Any:
    import torch

    return [
        torch.from_numpy(np.load(images / f"{n}.npy"))[None, None] for n in ("fixed", "moving")
    ]


def _their_keypoints(images: Path, _count: int) -> Measured:
    import torch

    model, (fixed, _) = _their_model(), _their_images(images)
    with torch.no_grad():
        return _timed(lambda: model.get_keypoints(fixed))


def _their_affine(images: Path, _count: int) -> Measured:
    import torch
    from keymorph.keypoint_aligners import AffineKeypointAligner
    from keymorph.utils import align_img

    model, (fixed, moving) = _their_model(), _their_images(images)

    def work() -> None:
        points = [model.get_keypoints(image) for image in (fixed, moving)]
        aligner = AffineKeypointAligner(points[1], points[0], dim=3)
        align_img(aligner.get_flow_field(fixed.shape), moving)

    with torch.no_grad():
        return _timed(work)


def _their_spline(images: Path, count: int) -> Measured:
    import torch
    from keymorph.keypoint_aligners import TPS

    fixed, moving = (torch.from_numpy(p).float()[None] for p in _points(count))
    shape = _their_images(images)[0].shape

    def work() -> None:
        spline = TPS(moving, fixed, torch.tensor([SMOOTHING]), dim=3)
        spline.get_flow_field(shape, compute_on_subgrids=True)

    with torch.no_grad():
        return _timed(work)


def _their_identity(images: Path, _count: int) -> Measured:
    """The largest distance in voxels by which the affine of equal points moves a voxel."""
    import torch
    from keymorph.keypoint_aligners import AffineKeypointAligner

    points = torch.from_numpy(_points(64)[0]).float()[None]
    shape = _their_images(images)[0].shape
    flow = AffineKeypointAligner(points, points, dim=3).get_flow_field(shape)
    still = torch.nn.functional.affine_grid(torch.eye(3, 4)[None], list(shape), align_corners=False)
    return {"voxels": float((flow - still).abs().max()) * shape[2] / 2}


def _our_pair(images: Path) -> Any:
    from retreg.geometry import Grid
    from retreg.image import Image

    arrays = [np.load(images / f"{name}.npy") for name in ("fixed", "moving")]
    spacing = 256.0 / arrays[0].shape[0]
    grid = Grid(arrays[0].shape, np.diag([spacing, spacing, spacing, 1.0]))
    return [Image(array[None], grid) for array in arrays]


def _our_looker() -> Any:
    import torch

    from retreg_server.registration.keymorph.detectors import BrainKeypointDetector
    from retreg_server.registration.networks.keypoint_net import Architecture, KeypointNet
    from retreg_server.registration.networks.weights import NetMetadata, is_shipped

    looker = BrainKeypointDetector()
    if not is_shipped(looker.name):
        torch.manual_seed(0)
        net = KeypointNet(Architecture("light", 3, 128)).eval().requires_grad_(False)
        template = torch.rand(128, 3) - 0.5
        looker.__dict__["_loaded"] = (net, NetMetadata("", 64, 3.5, template, "", {}))
    return looker


def _our_keypoints(images: Path, _count: int) -> Measured:
    looker, (fixed, _) = _our_looker(), _our_pair(images)
    return _timed(lambda: looker(fixed, "fixed", False, "cpu"))


def _our_affine(images: Path, _count: int) -> Measured:
    from retreg.fitting import fit_affine
    from retreg.resample import resample
    from retreg_server.registration.keymorph.similarity import mutual_information
    from retreg_server.registration.keymorph.view_matching import matches

    looker, (fixed, moving) = _our_looker(), _our_pair(images)

    def work() -> None:
        looks = [looker(image, role, False, "cpu")
                 for image, role in ((fixed, "fixed"), (moving, "moving"))]
        match = matches(*looks, "variance", mutual_information)[0]
        resample(moving, fit_affine(match.fixed, match.moving, match.weights), fixed.grid)

    return _timed(work)


def _our_spline(images: Path, count: int) -> Measured:
    from retreg.fitting import fit_tps
    from retreg.voxel_displacements import displacements

    grid = _our_pair(images)[0].grid
    fixed, moving = (grid.centre + 128.0 * p for p in _points(count))
    return _timed(lambda: displacements(fit_tps(fixed, moving, smoothing=SMOOTHING), grid))


def _our_identity(images: Path, _count: int) -> Measured:
    from retreg.fitting import fit_affine

    grid = _our_pair(images)[0].grid
    points = grid.centre + 128.0 * _points(64)[0]
    corners = grid.corners()
    moved = fit_affine(points, points)(corners) - corners
    return {"voxels": float(np.abs(moved).max() / grid.spacing.min())}


def _table(rows: list[dict[str, object]]) -> str:
    lines = ["| | keymorph 2.0.1 | retreg | times faster |", "|---|---|---|---|"]
    for row in rows:
        cells = [_cell(row["keymorph"]), _cell(row["retreg"])]
        both = [m["seconds"] for m in (row["keymorph"], row["retreg"])
                if isinstance(m, dict) and "seconds" in m]
        ratio = f"{both[0] / both[1]:.0f}" if len(both) == 2 else ""
        lines.append(f"| {row['stage']} | {cells[0]} | {cells[1]} | {ratio} |")
    return "\n".join(lines) + "\n"


def _cell(measured: object) -> str:
    if not isinstance(measured, dict):
        return "not run, or out of memory"
    if "voxels" in measured:
        return f"{measured['voxels']:.2g} voxels off"
    return (f"{measured['seconds']:.2f} s ({measured['cpu_seconds']:.2f} s CPU), "
            f"{measured['peak_gb']:.1f} GB")


if __name__ == "__main__":
    main()
