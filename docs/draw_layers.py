"""Draws the rooms of this house and who uses whom, from the real imports: `make layers`.

A room is a folder, or a module that stands at the top of one. docs/layers.json names for each room
the rooms that it may import, and tests/test_layers.py holds the code to it. This script renews the
drawing, docs/images/layers.png, and the table in docs/architecture.md.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parents[1]
LAYERS = ROOT / "docs" / "layers.json"
PAGE = ROOT / "docs" / "architecture.md"
DRAWING = ROOT / "docs" / "images" / "layers.png"
BEGIN, END = "<!-- layers: made by docs/draw_layers.py -->\n", "<!-- end of layers -->\n"
SOURCES = ("SlicerRetReg", "server")
# Folders whose modules are rooms of their own: those at the top of them are what is read first.
OPEN = ("retreg_server", "retreg_server.registration")
# Folders that are one room with all that is in them: their modules stand on many floors.
CLOSED = ("retreg", "retreg_server.serving")
BOX, GAP, LEFT = (142, 34), (12, 46), 20
COLOURS = {"retreg": "#d8ecd8", "RetRegLib": "#dbe7f6", "registration": "#fbe9c8", "": "#eeeeee"}


@cache
def modules() -> dict[str, Path]:
    """Dotted names of all modules, packages included."""
    found = {}
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = list(path.relative_to(ROOT / folder).with_suffix("").parts)
            if parts[0] in ("retreg", "retreg_server", "RetRegLib", "RetReg"):
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(module: str) -> str:
    """The room of a module: its folder, or itself where the folder is one of OPEN."""
    for name in CLOSED:
        if module == name or module.startswith(f"{name}."):
            return name
    path = modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return module if package in OPEN and path.name != "__init__.py" else package or module


def imported(module: str) -> Iterator[str]:
    """The modules of the project that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(modules()[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules() else node.module for name in inner]
        else:
            continue
        yield from (name for name in names if name in modules())


@cache
def arrows() -> dict[str, set[str]]:
    """For each room the other rooms that its modules import."""
    found: dict[str, set[str]] = {room(module): set() for module in modules()}
    for module in modules():
        found[room(module)] |= {room(name) for name in imported(module)} - {room(module)}
    return {name: targets for name, targets in found.items() if name not in OPEN}


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each room: one above the highest that it imports. Raises RecursionError when
    rooms import each other in a circle."""

    @cache
    def floor(name: str) -> int:
        return 1 + max((floor(target) for target in graph[name] if target in graph), default=0)

    return {name: floor(name) for name in graph}


def direct(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Without the arrows that lead where others lead, too: what is left shows the order."""

    @cache
    def below(name: str) -> frozenset[str]:
        own = graph[name] & set(graph)
        return frozenset(own.union(*(below(target) for target in own)))

    return {
        name: {t for t in graph[name] & set(graph) if not any(t in below(o) for o in graph[name])}
        for name in graph
    }


def table(layers: dict[str, list[str]]) -> str:
    """Markdown: each room, and what it may import."""
    rows = [f"| `{name}` | {', '.join(f'`{t}`' for t in layers[name]) or '—'} |" for name in layers]
    return "\n".join(["| room | may import |", "|---|---|", *rows]) + "\n"


def short(name: str) -> str:
    """A name as it stands in the drawing."""
    return name.removeprefix("retreg_server.").replace("registration.", "")


def colour(name: str) -> str:
    """The colour of the part of the house that a room belongs to."""
    parts = name.split(".")
    return next((COLOURS[key] for key in COLOURS if key in parts), COLOURS[""])


def draw(graph: dict[str, set[str]]) -> Image.Image:
    """All rooms, the ground floor below, with a line from each to those right under it."""
    level = floors(graph)
    rows = [sorted(n for n in graph if level[n] == f) for f in range(max(level.values()), 0, -1)]
    width = LEFT * 2 + max(map(len, rows)) * (BOX[0] + GAP[0])
    picture = Image.new("RGB", (width, len(rows) * (BOX[1] + GAP[1]) + 40), "white")
    canvas, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    place = {}
    for number, row in enumerate(rows):
        margin = (width - len(row) * (BOX[0] + GAP[0])) // 2
        for column, name in enumerate(row):
            place[name] = (margin + column * (BOX[0] + GAP[0]), 20 + number * (BOX[1] + GAP[1]))
    for name, targets in direct(graph).items():
        for target in targets:
            (x, y), (u, v) = place[name], place[target]
            canvas.line([(x + BOX[0] / 2, y + BOX[1]), (u + BOX[0] / 2, v)], fill="#999999")
    for name, (x, y) in place.items():
        canvas.rounded_rectangle(
            [x, y, x + BOX[0], y + BOX[1]], 6, fill=colour(name), outline="#666666"
        )
        middle = x + BOX[0] / 2, y + BOX[1] / 2
        canvas.text(middle, short(name), fill="black", font=font, anchor="mm")
    return picture


def main() -> None:
    """Renew the drawing and the table. docs/layers.json is edited by hand: it is the rule."""
    layers = json.loads(LAYERS.read_text("utf-8"))
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(before + BEGIN + table(layers) + END + after, encoding="utf-8")
    draw(arrows()).save(DRAWING, optimize=True)


if __name__ == "__main__":
    main()
