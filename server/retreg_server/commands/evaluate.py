"""`retreg evaluate`: how accurate, robust and fast the models are, on a folder of test images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from retreg.errors import OptionError

if TYPE_CHECKING:
    from retreg_server.evaluation.cases import Case

HELP = "measure accuracy, verdicts and time of the models on a folder of test images"
DEFAULT_MODELS = {
    "retina": ("fundus-sift", "auto-fundus"),
    "brain": ("elastix-affine", "auto-brain"),
    "volumes": ("elastix-affine", "auto-brain"),
    "brain-deformable": (
        "ants-syn", "elastix-bspline", "auto-brain:affine", "auto-brain:deformable"
    ),
}
MATCHERS = ("nearest", "sinkhorn", "attention")  # of fundus/point_matching.py
EXIT_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the verb."""
    parser.add_argument(
        "benchmark",
        choices=(*DEFAULT_MODELS, "keypoints", "matching", "smoothing"),
        help="which benchmark to run; smoothing shows what the SmoothProper layer is for, matching "
        "compares learned keypoints with SIFT",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="the folder with the test images; needed by all benchmarks but smoothing",
    )
    parser.add_argument(
        "--model",
        nargs="+",
        metavar="NAME",
        help="models to compare, MODEL or MODEL:TRANSFORM; times are relative to the first one. "
        "Baselines: identity, sift-homography, elastix-affine, elastix-bspline, ants-syn, "
        "dis-flow, tvl1-flow, variational-flow",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the report (default: evaluate-BENCHMARK)"
    )
    parser.add_argument(
        "--pairs", type=_positive, metavar="N", help="at most N pairs of each set (default: all)"
    )
    parser.add_argument(
        "--matcher",
        nargs="+",
        choices=MATCHERS,
        default=MATCHERS[:1],
        help="for matching: how learned points are matched; default: nearest",
    )
    parser.add_argument("--set", nargs="+", metavar="SET", help="only these sets of pairs")
    parser.add_argument(
        "--transform", metavar="FAMILY", help="transform of models that are named without one"
    )


def run(args: argparse.Namespace) -> int:
    """Run the benchmark and write the report.

    Returns 0, or 130 when interrupted; the pairs finished by then are reported. Raises InputError
    for unknown models or sets and for a folder without test images.
    """
    if args.benchmark == "smoothing":
        return _run_smoothing(args)
    if args.data is None:
        raise OptionError(
            f"The benchmark {args.benchmark} needs test images; name their folder with --data."
        )
    if args.benchmark in ("keypoints", "matching"):
        return (_run_keypoints if args.benchmark == "keypoints" else _run_matching)(args)
    from tqdm import tqdm

    from retreg_server.evaluation.bench import run_cases
    from retreg_server.evaluation.peers import is_missing, method_by_name
    from retreg_server.evaluation.report import Report

    cases = _chosen_cases(args.benchmark, args.data, args.pairs, args.set)
    names = tuple(dict.fromkeys(args.model or DEFAULT_MODELS[args.benchmark]))
    notes = [sentence for sentence in map(is_missing, names) if sentence]
    for note in notes:
        print(note, file=sys.stderr)
    methods = {n: method_by_name(n, args.transform) for n in names if not is_missing(n)}
    folder = args.out or Path(f"evaluate-{args.benchmark}")
    report = Report(folder, args.benchmark, notes)
    status = 0
    try:
        total = len(cases) * len(methods)
        for finished in tqdm(run_cases(cases, methods), total=total, unit="pair"):
            report.add(finished)
    except KeyboardInterrupt:
        print("Stopped; the finished pairs are reported.", file=sys.stderr)
        status = EXIT_INTERRUPTED
    report.close()
    print(f"{len(report.rows)} results are in {folder / 'index.html'}")
    return status


def _run_smoothing(args: argparse.Namespace) -> int:
    """Shapes that move farther than a pixel sees, with the SmoothProper layer and without it."""
    from retreg_server.evaluation.smoothing_cases import write_shape_report

    folder = args.out or Path("evaluate-smoothing")
    for each in write_shape_report(folder):
        print(
            f"{each.case.name}: {each.error_without:.2f} pixels off without the layer, "
            f"{each.error_with:.2f} with it"
        )
    print(f"The picture is {folder / 'smoothing.png'}")
    return 0


def _run_keypoints(args: argparse.Namespace) -> int:
    """The keypoints of KeyMorph models, on at most --pairs images or pairs of each set (12)."""
    from tqdm import tqdm

    from retreg_server.evaluation.keypoint_report import write_keypoint_report
    from retreg_server.evaluation.keypoints import keypoint_numbers
    from retreg_server.registration.keymorph.model import KeyMorph
    from retreg_server.registration.registry import get_model

    for name in args.model or ("keymorph-brain", "keymorph-fundus"):
        model = get_model(name)
        if not isinstance(model, KeyMorph):
            raise OptionError(
                f"{name} has no network for keypoints; use keymorph-brain or keymorph-fundus."
            )
        folder = (args.out or Path("evaluate-keypoints")) / name
        with tqdm(unit="image", desc=name) as bar:
            numbers = list(keypoint_numbers(model, args.data, args.pairs or 12, bar.update))
        unit = "mm" if "volume" in model.info.kinds else "pixels of a 1000-pixel picture"
        write_keypoint_report(folder, name, unit, numbers)
        print(f"{len(numbers)} numbers are in {folder / 'index.html'}")
    return 0


def _run_matching(args: argparse.Namespace) -> int:
    """Learned keypoints against SIFT, on at most --pairs photographs and pairs of cameras (6)."""
    from tqdm import tqdm

    from retreg_server.evaluation.matching import (
        matching_methods,
        matching_numbers,
        write_matching_report,
    )
    from retreg_server.evaluation.matching_pairs import difficulties

    pairs = difficulties(args.data, args.pairs or 6)
    folder = args.out or Path("evaluate-matching")
    with tqdm(total=len(pairs), unit="pair") as bar:
        numbers = list(matching_numbers(pairs, matching_methods(args.matcher), bar.update))
    write_matching_report(folder, numbers)
    print(f"{len(numbers)} numbers are in {folder / 'index.html'}")
    return 0


def _chosen_cases(
    benchmark: str, data: Path, pairs: int | None, sets: list[str] | None
) -> list[Case]:
    from retreg_server.evaluation.brain import brain_cases
    from retreg_server.evaluation.brain_deformable import deformable_cases
    from retreg_server.evaluation.retina import retina_cases
    from retreg_server.evaluation.volumes import volume_cases

    makers = {
        "retina": retina_cases,
        "brain": brain_cases,
        "volumes": volume_cases,
        "brain-deformable": deformable_cases,
    }
    cases = makers[benchmark](data, pairs)
    known = list(dict.fromkeys(case.benchmark_set for case in cases))
    unknown = set(sets or ()) - set(known)
    if unknown:
        raise OptionError(
            f"The set {sorted(unknown)[0]!r} is not known; use some of {', '.join(known)}."
        )
    return [case for case in cases if sets is None or case.benchmark_set in sets]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("a number from 1 upwards was expected")
    return number
