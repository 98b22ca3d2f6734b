"""Who may use whom: docs/layers.json is the rule, and docs/architecture.md prints it."""

from __future__ import annotations

import ast
import importlib.util
import json
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
RULES: dict[str, list[str]] = json.loads((ROOT / "docs/layers.json").read_text("utf-8"))
REGISTRATION = "retreg_server.registration."


@cache
def layers() -> ModuleType:
    """docs/draw_layers.py, which reads the imports."""
    spec = importlib.util.spec_from_file_location("draw_layers", ROOT / "docs/draw_layers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("room", RULES)
def test_a_room_imports_only_what_the_table_allows(room):
    assert layers().arrows()[room] <= set(RULES[room])


def test_the_table_knows_every_room_and_allows_nothing_that_is_not_used():
    used = {room: sorted(targets) for room, targets in layers().arrows().items()}
    assert {room: sorted(targets) for room, targets in RULES.items()} == used


def test_the_rooms_stand_on_floors():
    graph = {room: set(targets) for room, targets in RULES.items()}
    assert max(layers().floors(graph).values()) > 5
    with pytest.raises(RecursionError):
        layers().floors({"a": {"b"}, "b": {"a"}})


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: set(layers().imported(module)) - {module} for module in layers().modules()}
    graph = {m: targets - only_for_types(m) for m, targets in graph.items()}
    assert len(graph) > 250
    assert layers().floors(graph)


def only_for_types(module: str) -> set[str]:
    """What a module imports for the type checker alone, which imports nothing when it runs."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(layers().modules()[module].read_text("utf-8"))):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            inner = (each for each in ast.walk(node) if isinstance(each, ast.ImportFrom))
            found |= {each.module or "" for each in inner}
    return found


def test_numbers_know_no_anatomy_and_the_verdict_no_pipeline():
    assert not {r for r in RULES[REGISTRATION + "numerics"] if r.startswith(REGISTRATION)}
    pipelines = {REGISTRATION + name for name in ("fundus", "brain", "keymorph", "networks")}
    assert not pipelines & set(RULES[REGISTRATION + "quality"])
    assert "retreg_server.training" not in RULES["retreg_server.evaluation"]


def test_networks_know_no_millimetres():
    strays = {
        f"{module} {name}"
        for module in layers().modules()
        if module.startswith(REGISTRATION + "networks.")
        for name in layers().imported(module)
        if name in ("retreg.geometry", "retreg.transforms")
    }
    assert not strays


def test_what_is_read_first_is_little():
    tops = {name.removeprefix(REGISTRATION) for name in RULES if name.startswith(REGISTRATION)}
    assert len(tops) <= 13
    rooms = {REGISTRATION + top for top in tops}
    inside = [target for room in rooms for target in RULES[room] if target in rooms]
    assert len(inside) <= 40


def test_the_page_prints_the_table():
    assert layers().table(RULES) in (ROOT / "docs/architecture.md").read_text("utf-8")
