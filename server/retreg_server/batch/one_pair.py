"""The work on one pair of a batch, and what is left of it: a folder, whatever happens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image as Picture

from retreg.errors import FileError, RetRegError
from retreg.files import read_pair
from retreg.files.names import usable_name
from retreg.initial import initial_map
from retreg.messages import RegistrationRequest, Scalar
from retreg_server.batch.pairs import Pair
from retreg_server.registration import engine
from retreg_server.registration.registry import default_model, get_model
from retreg_server.reporting.output_room import refuse_large_result
from retreg_server.reporting.overlays import thumbnail
from retreg_server.reporting.result_folder import (
    MAP_FILES,
    RESULT_FILES,
    check_writable,
    write_outputs,
)
from retreg_server.reporting.sources import source_of

RESULT, FAILURE, THUMBNAIL = "result.json", "error.json", "thumbnail.jpg"
_THUMBNAIL_PIXELS = 400


@dataclass(frozen=True)
class Order:
    """What is wanted of every pair. model: None to choose by the images."""

    model: str | None
    options: Mapping[str, Scalar]
    maps: bool = False

    @property
    def stamp(self) -> dict[str, Any]:
        """By which a result is known to be of this order."""
        return {**asdict(self), "version": version("retreg")}


def is_done(pair: Pair, order: Order, folder: Path) -> bool:
    """Whether folder holds what came of this pair, of these very files, in this order."""
    said = outcome_in(folder)
    try:
        if said.get("order") != _stamp(pair, order):
            return False
        sources = [asdict(source_of(path)) for path in (pair.fixed, pair.moving)]
    except OSError:
        return False
    kept = [said.get(role, {}) for role in ("fixed", "moving")]
    return all(
        source.items() <= known.items() for source, known in zip(sources, kept, strict=True)
    )


def outcome_in(folder: Path) -> dict[str, Any]:
    """What the result or the failure in a folder says; empty where there is neither."""
    for name in (RESULT, FAILURE):
        try:
            said = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return dict(said) if isinstance(said, dict) else {}
    return {}


def register_pair(pair: Pair, order: Order, folder: Path) -> None:
    """Register a pair and leave its result in folder, or error.json with the reason for none.

    Raises FileError when nothing can be written there.
    """
    check_writable(folder)
    try:
        sources = _sources(pair)
        fixed, moving = read_pair((pair.fixed, None), (pair.moving, None), pair.masks)
        refuse_large_result(fixed, moving)
        model = order.model or default_model(fixed, moving)
        get_model(model).info.refuse_idle(order.options)
        initial = initial_map(pair.initial, fixed, moving) if pair.initial else None
        request = RegistrationRequest(fixed, moving, model, order.options, initial)
        result = engine.register(request)
    except RetRegError as error:
        write_failure(pair, order, folder, str(error))
        return
    stamp = _stamp(pair, order)
    result = replace(result, provenance={**result.provenance, "order": stamp})
    (folder / FAILURE).unlink(missing_ok=True)
    write_outputs(folder, fixed, moving, result, order.maps, sources=sources)
    small = thumbnail(fixed, moving, result.transform, _THUMBNAIL_PIXELS)
    Picture.fromarray(small).save(folder / THUMBNAIL, quality=80)


def write_failure(pair: Pair, order: Order, folder: Path, reason: str) -> None:
    """Leave the reason why there is no result, in place of what an earlier run left."""
    check_writable(folder)
    sources = []
    for path in (pair.fixed, pair.moving):
        try:
            sources.append(asdict(source_of(path)))
        except OSError:
            sources.append({"name": path.name})
    try:
        stamp = _stamp(pair, order)
    except OSError:
        stamp = order.stamp
    said = {
        "verdict": "error", "reason": reason, "order": stamp,
        "fixed": sources[0], "moving": sources[1],
    }  # fmt: skip
    for name in (*RESULT_FILES, *MAP_FILES, THUMBNAIL):
        (folder / name).unlink(missing_ok=True)
    (folder / FAILURE).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def _stamp(pair: Pair, order: Order) -> dict[str, Any]:
    """The order of one pair, with its masks and initial map if it has some. Raises OSError."""
    given: dict[str, Path | str | None] = {
        "fixed_mask": pair.fixed_mask, "moving_mask": pair.moving_mask, "initial": pair.initial
    }  # fmt: skip
    return order.stamp | {
        name: asdict(source_of(value)) if isinstance(value, Path) else value
        for name, value in given.items()
        if value
    }


def _sources(pair: Pair) -> list[Any]:
    try:
        return [source_of(path) for path in (pair.fixed, pair.moving)]
    except OSError:
        missing = next(p for p in (pair.fixed, pair.moving) if not usable_name(p).exists())
        raise FileError(f"There is no file {missing.name!r}; check its name and folder.") from None
