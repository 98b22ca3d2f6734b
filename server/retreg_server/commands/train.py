"""`retreg train`: train the networks of the models that have one."""

from __future__ import annotations

import argparse
import json
import math
import signal
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from retreg.errors import InputError
from retreg_server.registration.registry import MODELS

if TYPE_CHECKING:
    from typing import Any

    from retreg_server.training.recipe import TrainingOrder

HELP = "train the network of a model on simulated images; continues where it stopped"
RECIPES = tuple(name for name, entry in MODELS.items() if entry.recipe)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the verb."""
    parser.add_argument("recipe", choices=RECIPES, help="which network to train")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="label maps of heads (.nii.gz), or vessel masks of eyes (*_vessels.png); not needed "
        "with --export",
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR", help="checkpoints and logs"
    )
    parser.add_argument("--steps", type=_positive, default=40_000, help="default: 40000")
    parser.add_argument("--batch", type=_positive, default=2, help="images per step; default: 2")
    parser.add_argument(
        "--rate", type=_above_zero, default=2e-3, help="learning rate; default: 0.002"
    )
    parser.add_argument(
        "--start-from", type=Path, metavar="FILE", help="weights (.safetensors) to go on from"
    )
    parser.add_argument("--seed", type=_not_negative, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--mixed-precision", action="store_true", help="bfloat16 where it is safe")
    parser.add_argument(
        "--check-minutes", type=_above_zero, default=4.0, help="between validations; default: 4"
    )
    _add_recipe_arguments(parser)
    parser.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="do not train: write the best weights of the run below DIR, ready to be shipped",
    )


def _add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """What only some recipes read."""
    parser.add_argument("--keypoints", type=_positive, default=128, help="16 to 512; default: 128")
    parser.add_argument(
        "--layer-steps",
        type=_not_negative,
        metavar="N",
        help="for smoothproper-fundus: steps of the smoothing layer, 0 trains without it",
    )
    parser.add_argument(
        "--objective",
        choices=("keypoints", "unsupervised", "supervised"),
        default="keypoints",
        help="for keymorph-brain: learn keypoints (default), or tune a network that knows them",
    )
    parser.add_argument(
        "--look-at",
        type=Path,
        metavar="DIR",
        help="real images whose errors are logged too; training never depends on them",
    )


def run(args: argparse.Namespace) -> int:
    """Train or export; returns 0. Raises InputError for unusable data or options.

    Interrupt and termination signals end the training with a checkpoint.
    """
    from retreg_server.registration.networks.devices import chosen_device
    from retreg_server.training.export import export_bundle, hardware
    from retreg_server.training.loop import Plan, train
    from retreg_server.training.recipe import recipe_of

    args.device = str(chosen_device(args.device))
    recipe = recipe_of(args.recipe)
    if args.export is not None:
        _recall(args)
        bundle = recipe.bundle(_order(args), _options(args), hardware(args.device))
        home = export_bundle(args.out, args.export, bundle)
        print(f"The weights are in {home}")
        return 0
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    task = recipe.task(_order(args))
    plan = Plan(
        folder=args.out,
        steps=args.steps,
        batch=args.batch,
        rate=args.rate,
        seed=args.seed,
        device=args.device,
        mixed_precision=args.mixed_precision,
        minutes_between_checks=args.check_minutes,
        weights=args.start_from,
        recipe=_options(args),
    )
    finished = train(task, plan)
    print(f"{finished.step} steps; best validation error {finished.best:.3f}, in {args.out}")
    return 0


def _order(args: argparse.Namespace) -> TrainingOrder:
    from retreg_server.training.recipe import TrainingOrder

    names = (field.name for field in fields(TrainingOrder))
    return TrainingOrder(**{name: getattr(args, name) for name in names})


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """What the card of a model tells of its training."""
    names = ("recipe", "steps", "batch", "rate", "keypoints", "seed", "mixed_precision")
    return {name: getattr(args, name) for name in names}


def _recall(args: argparse.Namespace) -> None:
    """Put the options that a run was trained with last into args.

    Raises InputError for a run of another recipe. Nothing happens for runs that kept none.
    """
    from retreg_server.training.loop import RECIPE

    stored = args.out / RECIPE
    if not stored.exists():
        return
    known = json.loads(stored.read_text(encoding="utf-8"))
    if known["recipe"] != args.recipe:
        raise InputError(
            f"The run in {args.out.name} is of {known['recipe']}, not of {args.recipe}; name the "
            "recipe that it was trained with."
        )
    for name in _options(args):
        setattr(args, name, known[name])


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("a number from 1 upwards was expected")
    return number


def _not_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("a number from 0 upwards was expected")
    return number


def _above_zero(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("a number above 0 was expected")
    return number
