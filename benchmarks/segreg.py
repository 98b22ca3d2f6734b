# ruff: noqa: T201 - a script that prints its result
"""What segreg-fundus buys: python benchmarks/segreg.py DATA [--critic FILE] [--vessels] [--pairs N]

Three tables. The critic: how often a damaged vessel map is further in style from right ones than
another right one, on cameras that it never saw. Vessels: Dice with manual masks of DRIVE and STARE,
which nothing was trained on, against the vesselness filter at its best threshold. Registration by
the protocol of Zhang et al. 2019: pairs are aligned by their landmarks, bent by a random warp, and
registered; soft Dice (equation 9) of Frangi's vesselness, which needs scikit-image (retreg[peers]).
DATA is the folder of test images of `retreg evaluate`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TextIO

import numpy as np

from retreg.files import read_image
from retreg.fitting import fit
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import RegistrationRequest, Scalar
from retreg.resample import resample
from retreg.transforms import Affine, Chain, DisplacementField
from retreg_server.evaluation.retina import retina_cases
from retreg_server.registration.engine import register
from retreg_server.registration.preprocessing.retina_picture import Picture, retina_picture
from retreg_server.registration.preprocessing.vesselness import vessel_maps
from retreg_server.registration.registry import get_model

CAMERAS = ("DRIVE", "STARE")  # of the masks, kept out of every training
WARP_NODES, WARP_DEVIATION = (3, 4), 5.0 / 720  # rows and columns; of the width of the picture
NODES = 64  # of the interpolated warp
SIDE = 720  # pixels of the pictures whose vesselness is compared
DIAMETER = 768
THRESHOLDS = np.linspace(0.02, 0.98, 49)
ROWS: dict[str, tuple[str, dict[str, Scalar]]] = {
    "segreg-fundus": ("segreg-fundus", {"start": "identity", "refine": False}),
    "segreg-fundus, own start, refined": ("segreg-fundus", {}),
    "auto-fundus": ("auto-fundus", {"transform": "deformable"}),
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--critic", type=Path, help="critic.safetensors of the training run")
    parser.add_argument("--vessels", action="store_true", help="the table of vessels")
    parser.add_argument("--pairs", type=int, default=0, help="of the table of registration")
    args = parser.parse_args()
    folder = args.data / "retina"
    if args.critic:
        _print_critic(args.critic, folder)
    if args.vessels:
        _print_vessels(folder / "vessels")
    if args.pairs:
        _print_registration(args.data, args.pairs)


def _print_critic(file: Path, folder: Path, out: TextIO = sys.stdout) -> None:
    """A row for each camera and each origin of the style."""
    import torch

    from retreg_server.training.checkpoints import load_weights
    from retreg_server.training.damaged_vessels import DAMAGES, damaged
    from retreg_server.training.plate_views import PlateView
    from retreg_server.training.segreg_pictures import lone_masks, real_plates
    from retreg_server.training.vessel_critic import VesselCritic, mean_style, separation

    critic = VesselCritic()
    load_weights(file, critic)
    trees = folder / "vessel_trees"
    known = real_plates(trees) + lone_masks(trees)
    for camera in CAMERAS:
        own = [PlateView(p.layers) for p in real_plates(folder / "vessels") if p.camera == camera]
        generator = torch.Generator().manual_seed(1)
        wrong = {kind: [damaged(view, kind, generator) for view in own] for kind in DAMAGES}
        for origin in ("same", "CHASE", "HRF", "CHASE HRF"):
            scores: dict[str, list[float]] = {kind: [] for kind in DAMAGES}
            for view in own:
                others = [each for each in own if each is not view]
                if origin != "same":
                    others = [PlateView(p.layers) for p in known if p.camera in origin]
                style = mean_style(critic, [each.layer("vessels") for each in others])
                for kind in DAMAGES:
                    right = [view.layer("vessels")]
                    scores[kind].append(separation(critic, style, right, wrong[kind]))
            means = {kind: float(np.mean(values)) for kind, values in scores.items()}
            low = ", ".join(f"{kind} {value:.2f}" for kind, value in means.items() if value < 0.95)
            mean = np.mean(list(means.values()))
            print(f"| {camera} | {origin} | {mean:.3f} | {low or '-'} |", file=out)


def _print_vessels(folder: Path, out: TextIO = sys.stdout) -> None:
    """Mean Dice of the network at 0.5, and of the filter at the threshold that is best here."""
    model = get_model("segreg-fundus")
    for camera in CAMERAS:
        learned, filtered = [], []
        for file in sorted(folder.glob(f"{camera}_*_vessels.png")):
            image = read_image(file.with_name(file.name.replace("_vessels", "")))
            truth = read_image(file).array[0, 0] > 0
            picture = retina_picture(image, "fixed", DIAMETER)
            inside = _on(picture, picture.inside.astype(np.float32), image.grid) > 0.5
            maps = vessel_maps(picture.grey, picture.inside)
            ridges = _on(picture, maps.best, image.grid)[inside]
            seen = model.vessels(image).array[0, 0][inside]  # type: ignore[attr-defined]
            learned.append([_dice(seen > level, truth[inside]) for level in THRESHOLDS])
            filtered.append([_dice(ridges > level, truth[inside]) for level in THRESHOLDS])
        at_half = np.mean(learned, axis=0)[len(THRESHOLDS) // 2]
        best = np.mean(learned, axis=0).max(), np.mean(filtered, axis=0).max()
        row = f"{at_half:.3f} | {best[0]:.3f} | {best[1]:.3f}"
        print(f"| {camera} ({len(learned)}) | {row} |", file=out)


def _on(picture: Picture, values: np.ndarray, grid: Grid) -> np.ndarray:
    """(rows, columns) on the pixels of the image that the picture was cut from."""
    height, width = values.shape
    own = Image(values[None, None], Grid((width, height, 1), picture.world_from_pixel))
    return resample(own, Affine.identity(), grid, fill=0).array[0, 0]


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * (first & second).sum() / max(1, first.sum() + second.sum()))


def _print_registration(data: Path, count: int, out: TextIO = sys.stdout) -> None:
    """Mean soft Dice before and after, of each method of ROWS, on the same warps."""
    scores: dict[str, list[float]] = {"before": [], **{name: [] for name in ROWS}}
    cases = [case for case in retina_cases(data) if case.benchmark_set == "multimodal"]
    for number, case in enumerate(cases[:count]):
        pair = case.load()
        fixed, moving = _bent_pair(pair.fixed, pair.moving, pair.fixed_points,
                                   pair.original_points, number)  # fmt: skip
        scores["before"].append(_soft_dice(fixed, moving))
        for name, (model, options) in ROWS.items():
            result = register(RegistrationRequest(fixed, moving, model, options))
            warped = resample(moving, result.transform, fixed.grid, fill=0)
            scores[name].append(_soft_dice(fixed, warped))
        line = " ".join(f"{values[-1]:.3f}" for values in scores.values())
        print(f"{case.name}: {line}", file=sys.stderr, flush=True)
    for name, values in scores.items():
        print(f"| {name} | {np.mean(values):.3f} | {np.median(values):.3f} |", file=out)


def _bent_pair(
    fixed: Image, moving: Image, points: np.ndarray, targets: np.ndarray, seed: int
) -> tuple[Image, Image]:
    """Both on the pixels of fixed, the moving one aligned by landmarks and bent at random."""
    aligned = fit("affine", points, targets, np.ones(len(points)), 0.0)
    residual = np.linalg.norm(aligned(points) - targets, axis=1)
    good = residual <= 2.5 * np.median(residual)
    aligned = fit("affine", points[good], targets[good], np.ones(int(good.sum())), 0.0)
    warp = _random_warp(np.random.default_rng(seed), fixed.grid)
    return fixed, resample(moving, Chain((warp, aligned)), fixed.grid, fill=0)


def _random_warp(random: np.random.Generator, grid: Grid) -> DisplacementField:
    """Normal numbers on 3 x 4 nodes, interpolated by cubic splines."""
    import cv2

    width, height, _ = grid.size
    nodes = random.normal(size=(*WARP_NODES, 2)).astype(np.float32) * WARP_DEVIATION * width
    fine = cv2.resize(nodes, (NODES, NODES), interpolation=cv2.INTER_CUBIC)
    vectors = np.zeros((3, 1, NODES, NODES))
    vectors[:2, 0] = np.moveaxis(fine, -1, 0)
    steps = np.diag([(width - 1) / (NODES - 1), (height - 1) / (NODES - 1), 1.0, 1.0])
    return DisplacementField(vectors, Grid((NODES, NODES, 1), grid.world_from_index @ steps))


def _soft_dice(fixed: Image, moving: Image) -> float:
    """Equation 9 of the vesselness of both, where both show something."""
    first, second = _frangi(fixed), _frangi(moving)
    both = (first[1] & second[1]).astype(np.float32)
    least = (np.minimum(first[0], second[0]) * both).sum()
    return float(2 * least / max(1e-9, ((first[0] + second[0]) * both).sum()))


def _frangi(image: Image) -> tuple[np.ndarray, np.ndarray]:
    """Frangi's vesselness of the green channel at SIDE pixels, and the field of view."""
    import cv2
    from skimage.filters import frangi

    grey = image.array[min(1, len(image.array) - 1), 0].astype(np.float32)
    colour = image.array.max(axis=0)[0] > 12
    size = SIDE, round(SIDE * grey.shape[0] / grey.shape[1])
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA) / 255
    kernel = np.ones((25, 25), np.uint8)
    shown = cv2.erode(cv2.resize(colour.astype(np.uint8), size), kernel, borderValue=0) > 0
    picture = retina_picture(image, "fixed", DIAMETER)
    stronger = vessel_maps(picture.grey, picture.inside).stronger
    return frangi(grey, black_ridges=stronger == "dark") * shown, shown


if __name__ == "__main__":
    main()
