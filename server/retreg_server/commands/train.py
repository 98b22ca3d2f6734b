"""`retreg train`: train the networks of the models that have one."""

from __future__ import annotations

import argparse
import json
import math
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from retreg.errors import InputError

if TYPE_CHECKING:
    from typing import Any

    from retreg_server.training.export import Bundle
    from retreg_server.training.loop import Task

HELP = "train the network of a model on made-up images; continues where it stopped"
FIELD_RECIPES = ("smoothproper-fundus", "smoothproper-brain", "voxelmorph-brain")
RECIPES = ("keymorph-brain", "keymorph-fundus", *FIELD_RECIPES)


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
    parser.add_argument("--keypoints", type=_positive, default=128, help="16 to 512; default: 128")
    parser.add_argument("--seed", type=_not_negative, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--mixed-precision", action="store_true", help="bfloat16 where it is safe")
    parser.add_argument(
        "--check-minutes", type=_above_zero, default=4.0, help="between validations; default: 4"
    )
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
    parser.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="do not train: write the best weights of the run below DIR, ready to be shipped",
    )


def run(args: argparse.Namespace) -> int:
    """Train or export; returns 0. Raises InputError for unusable data or options.

    Interrupt and termination signals end the training with a checkpoint.
    """
    from retreg_server.registration.networks.devices import chosen_device
    from retreg_server.training.export import export_bundle
    from retreg_server.training.loop import Plan, train

    args.device = str(chosen_device(args.device))
    if args.export is not None:
        _recall(args)
        home = export_bundle(args.out, args.export, _bundle(args))
        print(f"The weights are in {home}")
        return 0
    if args.data is None:
        raise InputError("Training needs --data DIR, the folder with label maps or vessel masks.")
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
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
        recipe=_recipe(args),
    )
    finished = train(_task(args), plan)
    print(f"{finished.step} steps; best validation error {finished.best:.3f}, in {args.out}")
    return 0


def _task(args: argparse.Namespace) -> Task[Any]:
    if args.recipe in FIELD_RECIPES:
        return _field_task(args)
    if args.recipe == "keymorph-fundus":
        from retreg_server.training.keymorph_fundus import fundus_task

        return fundus_task(
            args.data, args.out, args.keypoints, args.seed, args.look_at, args.device
        )
    from retreg_server.training.keymorph_brain import brain_task

    return brain_task(
        args.data, args.out, args.keypoints, args.seed, args.look_at, args.device, args.objective
    )


def _field_task(args: argparse.Namespace) -> Task[Any]:
    from retreg_server.training.field_recipes import brain_field_task, fundus_field_task

    if args.recipe == "smoothproper-fundus":
        return fundus_field_task(args.data, args.out, args.seed, args.device, args.layer_steps)
    return brain_field_task(args.recipe, args.data, args.device)


def _bundle(args: argparse.Namespace) -> Bundle:
    from retreg_server.training.export import hardware

    recipe = _recipe(args)
    if args.recipe in FIELD_RECIPES:
        from retreg_server.training.field_recipes import field_bundle

        del recipe["keypoints"]
        return field_bundle(args.recipe, recipe, hardware(args.device))
    if args.recipe == "keymorph-fundus":
        from retreg_server.training.keymorph_fundus import fundus_bundle

        return fundus_bundle(args.keypoints, recipe, hardware(args.device))
    from retreg_server.training.keymorph_brain import brain_bundle

    return brain_bundle(args.out, args.keypoints, recipe, hardware(args.device))


def _recipe(args: argparse.Namespace) -> dict[str, Any]:
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
    for name in _recipe(args):
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
