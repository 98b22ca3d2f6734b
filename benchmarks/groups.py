"""Groups of real images with and without strangers: are wrong results accepted, and how good are
the right ones beside registering two at a time?

    python benchmarks/groups.py DATA --eyes 10 --heads 1 --out groups.csv

DATA holds retina/same_eye_pairs_unam, retina/multimodal_landmark_pairs and brain/malf_oasis. Every
pair of images makes a group of two, one of three with a turned and darkened copy, and one with an
image of somebody else. Pairs that were registered for one group are not registered again.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, zip_longest
from pathlib import Path

import numpy as np

from retreg.errors import RegistrationError
from retreg.files import read_image
from retreg.fitting import fit_affine
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import RegistrationRequest, RegistrationResult
from retreg.progress import Progress, no_progress
from retreg.resample import resample
from retreg.transforms import Affine, Transform
from retreg_server.registration import engine
from retreg_server.registration.groupwise import links
from retreg_server.registration.groupwise.group import Group, register_group
from retreg_server.registration.keymorph.model import KeyMorph
from retreg_server.registration.registry import get_model
from retreg_server.registration.subject import subject_of

TABLE = "_landmarks.csv"
WRONG = 0.01  # of the diagonal: a median error beyond this is a wrong result
COLUMNS = (
    "group", "images", "strangers", "verdicts", "left_out", "left_out_right", "wrong_accepts",
    "largest_error", "largest_error_of_pairs", "worse_per_mille",
)  # fmt: skip
Memory = dict[tuple[int, int], RegistrationResult | None]


@dataclass(frozen=True, eq=False)
class Trial:
    """name. images. strangers: their numbers. points: (n, 3) in images that have some, by number;
    row by row of the same places."""

    name: str
    images: Sequence[Image]
    strangers: frozenset[int] = frozenset()
    points: dict[int, np.ndarray] = field(default_factory=dict)


def retina_trials(folder: Path) -> Iterator[Trial]:
    """Three for every eye of the two folders of pairs."""
    same = [
        (path, Path(str(path).replace("_A.", "_B.")), path.with_name(path.name[:7] + "_silver.csv"))
        for path in sorted((folder / "same_eye_pairs_unam").glob("*_A.jpg"))
    ]
    several = [
        (path, Path(str(path).replace("_fixed", "_moving")), path.with_name(path.name[:3] + TABLE))
        for path in sorted((folder / "multimodal_landmark_pairs").glob("*_fixed.png"))
    ]
    sources = [each for both in zip_longest(same, several) for each in both if each]
    for number, (first, second, table) in enumerate(sources):
        other = sources[(number + 3) % len(sources)][0]
        rows = np.loadtxt(table, delimiter=",", skiprows=2, usecols=range(4))
        ends = [np.column_stack([rows[:, i], rows[:, i + 1], 0 * rows[:, 0]]) for i in (0, 2)]
        yield from _trials(first.name[:7], *map(read_image, (first, second, other)), ends)


def head_trials(folder: Path) -> Iterator[Trial]:
    """Three for two scans of one head, every second voxel of them."""
    scans = [_halved(read_image(folder / f"{n}_SS.nii.gz")) for n in (1003, 1023, 1000)]
    yield from _trials("1003", *scans, None)


def _trials(
    name: str, first: Image, second: Image, other: Image, ends: list[np.ndarray] | None
) -> Iterator[Trial]:
    copy, way = _copied(first)
    points = {0: ends[0], 1: ends[1]} if ends else {}
    yield Trial(f"{name} pair", [first, second], points=points)
    more = {2: way(points[0])} if points else {}
    yield Trial(f"{name} and copy", [first, second, copy], points={**points, **more})
    between = {0: points[0], 2: points[1]} if points else {}
    yield Trial(f"{name} and stranger", [first, other, second], frozenset({1}), between)


def _copied(image: Image) -> tuple[Image, Affine]:
    """The image turned by 20 degrees about its middle and darkened, and where its points went."""
    middle = image.grid.world(np.array([(np.array(image.grid.size) - 1) / 2]))[0]
    turn = np.eye(4)
    cosine, sine = np.cos(np.radians(20)), np.sin(np.radians(20))
    turn[:2, :2] = [[cosine, -sine], [sine, cosine]]
    turn[:3, 3] = middle - turn[:3, :3] @ middle
    way = Affine(turn)
    turned = resample(image, way.inverse, image.grid)
    values = (0.8 * turned.array.astype(np.float32)).astype(image.array.dtype)
    return Image(values, image.grid), way


def _halved(image: Image) -> Image:
    array = np.ascontiguousarray(image.array[:, ::2, ::2, ::2])
    matrix = image.grid.world_from_index @ np.diag([2.0, 2.0, 2.0, 1.0])
    return Image(array, Grid(array.shape[:0:-1], matrix))


def remember_pairs(memory: Memory) -> None:
    """Let pairs of images that stay in memory be registered only once."""

    def register(
        request: RegistrationRequest, progress: Progress = no_progress
    ) -> RegistrationResult:
        key = id(request.fixed), id(request.moving)
        if key not in memory:
            try:
                memory[key] = engine.register(request, progress)
            except RegistrationError:
                memory[key] = None
        found = memory[key]
        if found is None:
            raise RegistrationError("Nothing was found.")
        return found

    links.register = register  # type: ignore[attr-defined]


def row(trial: Trial, group: Group, memory: Memory) -> dict[str, object]:
    """What is written of a trial: verdicts, wrong accepts, and errors in px or mm."""
    verdicts = [result.quality.verdict for result in group.results]
    kept = [n for n in range(len(trial.images)) if n not in group.left_out]
    known = [n for n in kept if n in trial.points]
    size = trial.images[0].grid.diagonal_mm
    errors, alone = {}, {}
    for a in known:
        for b in known:
            direct = memory.get((id(trial.images[a]), id(trial.images[b])))
            if a < b and direct:
                errors[a, b] = _error(trial, a, b, _between(group, a, b))
                alone[a, b] = _error(trial, a, b, direct.transform)
    accepted = [n for n, verdict in enumerate(verdicts) if verdict == "accept"]
    wrong = sum(n in trial.strangers for n in accepted) + sum(
        error > WRONG * size and {*pair} <= {*accepted} for pair, error in errors.items()
    )
    worse = {pair: (errors[pair] - alone[pair]) * 1000 / size * np.sqrt(2) for pair in errors}
    return {
        "group": trial.name,
        "images": len(verdicts),
        "strangers": len(trial.strangers),
        "verdicts": " ".join(verdicts),
        "left_out": " ".join(map(str, group.left_out)),
        "left_out_right": set(group.left_out) == trial.strangers,
        "wrong_accepts": wrong,
        "largest_error": round(max(errors.values()), 3) if errors else "",
        "largest_error_of_pairs": round(max(alone.values()), 3) if alone else "",
        "worse_per_mille": round(max(worse.values()), 3) if worse else "",
    }


def _error(trial: Trial, a: int, b: int, way: Transform) -> float:
    """The median distance of the points of a, brought to b, from those of b."""
    return float(np.median(np.linalg.norm(way(trial.points[a]) - trial.points[b], axis=1)))


def _between(group: Group, a: int, b: int) -> Transform:
    """From one image of the group to another, by the mean."""
    to_first, to_second = (group.results[n].transform for n in (a, b))
    marks = group.results[a].fixed_keypoints.points
    slope = fit_affine(to_first(marks), marks)

    def way(points: np.ndarray) -> np.ndarray:
        places = slope(points)
        for _ in range(20):
            places = places + slope(points) - slope(to_first(places))
        return to_second(places)

    return way


def main() -> None:
    """Run the trials and write a row for each as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--eyes", type=int, default=10)
    parser.add_argument("--skip", type=int, default=0, help="so many eyes")
    parser.add_argument("--heads", type=int, default=0, help="0 or 1")
    parser.add_argument("--out", type=Path, default=Path("groups.csv"))
    args = parser.parse_args()
    memory: Memory = {}
    remember_pairs(memory)
    eyes = islice(retina_trials(args.data / "retina"), 3 * args.skip, 3 * (args.skip + args.eyes))
    heads = islice(head_trials(args.data / "brain" / "malf_oasis"), 3 * args.heads)
    rows: list[dict[str, object]] = []
    keep: list[Trial] = []  # an image that is forgotten would lend its id to another
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for trial in chain(eyes, heads):
            keep.append(trial)
            model = get_model(subject_of(trial.images[0]).keypoint_model)
            assert isinstance(model, KeyMorph)
            try:
                found = row(trial, register_group(model, trial.images, {}), memory)
            except RegistrationError as error:
                found = {"group": trial.name, "verdicts": str(error)}
            writer.writerow(found)
            file.flush()
            rows.append(found)
    wrong = sum(int(str(each.get("wrong_accepts", 0))) for each in rows)
    sys.stdout.write(f"{len(rows)} groups, {wrong} wrong accepts.\n")


if __name__ == "__main__":
    main()
