"""The rules of the house that a machine can check. The reasons are in docs/architecture.md."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from retreg_server.registration.registry import MODELS

ROOT = Path(__file__).parents[1]
SOURCE_FOLDERS = ("SlicerRetReg", "server")
LONGEST_FILE, LONGEST_FUNCTION = 400, 40

DOCUMENTED = ("README.md", "training.jsonl")  # of weights: the card, and how they were trained

REGISTRATION = "server/retreg_server/registration/"
TRAINING = "server/retreg_server/training/"
EVALUATION = "server/retreg_server/evaluation/"
SERVING = "server/retreg_server/serving/"
MONAI_LABEL_APP = "server/monailabel_app/"
DICOM = ("server/retreg_server/dicom/", "SlicerRetReg/retreg/dicom/")
FILES = "SlicerRetReg/retreg/files/"
SLICER_MODULE = ("SlicerRetReg/RetReg.py", "SlicerRetReg/RetRegLib/", "SlicerRetReg/Testing/")

ONLY_IN = {
    "torch": (REGISTRATION, TRAINING, EVALUATION),
    "monai": (REGISTRATION, TRAINING, EVALUATION),
    "requests": ("SlicerRetReg/retreg/exchange.py", DICOM[0], MONAI_LABEL_APP),
    "monailabel": (MONAI_LABEL_APP,),
    "ray": (SERVING + "workers/ray_executor.py",),
    "fastapi": (SERVING, MONAI_LABEL_APP),
    "starlette": (SERVING,),
    "pydicom": (*DICOM, FILES),
    "highdicom": DICOM[:1],
    "pynetdicom": DICOM[:1],
    "dicomweb_client": DICOM[:1],
    "SimpleITK": (FILES, EVALUATION),
    "slicer": SLICER_MODULE,
    "qt": SLICER_MODULE,
    "ctk": SLICER_MODULE,
    "vtk": SLICER_MODULE,
    "retreg_server": ("server/",),
    "retreg_server.serving": (SERVING, "server/retreg_server/commands/"),
    "retreg_server.commands": ("server/retreg_server/commands/", "server/retreg_server/cli.py"),
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def sources() -> tuple[Path, ...]:
    return tuple(path for name in SOURCE_FOLDERS for path in sorted((ROOT / name).rglob("*.py")))


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(node: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported in node and below."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            yield from ((inner.lineno, alias.name) for alias in inner.names)
        elif isinstance(inner, ast.ImportFrom):
            module = inner.module or ""
            assert inner.level == 0, f"a relative import in line {inner.lineno}"
            yield inner.lineno, module
            yield from ((inner.lineno, f"{module}.{alias.name}") for alias in inner.names)


def at_file_scope(body: list[ast.stmt]) -> Iterator[tuple[int, str]]:
    """What is imported when the module is, so neither in functions nor for the type checker."""
    for statement in body:
        types_only = isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test)
        if isinstance(statement, ast.ClassDef):
            yield from at_file_scope(statement.body)
        elif not types_only and not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imported(statement)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_the_sources_are_found() -> None:
    assert len(sources()) > 30


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_only_where_it_belongs(package: str) -> None:
    strays = {
        f"{place(path)}:{line}"
        for path in sources()
        if not place(path).startswith(ONLY_IN[package])
        for line, name in imported(tree(path))
        if is_within(name, package)
    }
    assert not strays, f"{package} belongs into {ONLY_IN[package]}"


def test_the_shared_library_needs_only_numpy_when_it_is_imported() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "retreg"}
    strays = {
        f"{place(path)}:{line} {name}"
        for path in sources()
        if place(path).startswith("SlicerRetReg/retreg/")
        for line, name in at_file_scope(tree(path).body)
        if name.split(".")[0] not in allowed
    }
    assert not strays


def test_the_slicer_module_needs_only_what_comes_with_slicer() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "vtk", "slicer", "qt", "ctk", "retreg"}
    strays = {
        f"{place(path)}:{line} {name}"
        for path in sources()
        if place(path).startswith(SLICER_MODULE)
        for line, name in at_file_scope(tree(path).body)
        if name.split(".")[0] not in allowed | {"RetRegLib"}
    }
    assert not strays


def test_only_one_module_knows_the_frame_of_slicer() -> None:
    knowing = re.compile(r"-1(\.0)?, -1(\.0)?, 1(\.0)?\b")
    strays = {
        place(path)
        for path in sources()
        if place(path).startswith(SLICER_MODULE) and knowing.search(path.read_text("utf-8"))
    }
    assert strays == {"SlicerRetReg/RetRegLib/scene/nodes.py"}


def test_registration_knows_neither_http_nor_files() -> None:
    strays = {
        f"{place(path)}:{line} {name}"
        for path in sources()
        if place(path).startswith(REGISTRATION)
        for line, name in imported(tree(path))
        if any(is_within(name, package) for package in ("retreg.client", "retreg.files"))
    }
    assert not strays


def test_no_file_is_too_long() -> None:
    lengths = {place(path): len(path.read_text("utf-8").splitlines()) for path in sources()}
    assert not {name: n for name, n in lengths.items() if n > LONGEST_FILE}


def test_no_function_is_too_long() -> None:
    lengths = {
        f"{place(path)}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert not {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION}


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    drawer = re.compile(r"_?(utils?|helpers?|common|misc|tools)", re.IGNORECASE)
    names = {place(path): {path.stem, *path.relative_to(ROOT).parts[:-1]} for path in sources()}
    assert not {name for name, parts in names.items() if any(map(drawer.fullmatch, parts))}


def test_every_module_says_what_it_is_for() -> None:
    assert not {place(path) for path in sources() if not ast.get_docstring(tree(path))}


def test_every_module_postpones_its_annotations() -> None:
    # Slicer evaluates the annotations of its parameter nodes, which this import forbids.
    exceptions = {"SlicerRetReg/RetRegLib/scene/parameters.py"}
    without = {
        place(path)
        for path in sources()
        if len(body := tree(path).body) > 1  # more than a docstring
        and "__future__.annotations" not in {name for _, name in at_file_scope(body)}
    }
    assert not without - exceptions


def test_only_the_command_line_prints() -> None:
    allowed = ("server/retreg_server/commands/", "server/retreg_server/cli.py")
    strays = {
        f"{place(path)}:{node.lineno}"
        for path in sources()
        if not place(path).startswith(allowed)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("print", "breakpoint")
    }
    assert not strays


def test_nothing_executes_what_it_reads() -> None:
    forbidden = {"pickle", "marshal", "shelve", "dill", "joblib"}
    strays = {
        f"{place(path)}:{line} {name}"
        for path in sources()
        for line, name in imported(tree(path))
        if name.split(".")[0] in forbidden
    }
    calls = {
        f"{place(path)}:{node.lineno} {node.func.id}"
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("eval", "exec")
    }
    assert not strays | calls


def test_no_text_names_a_place_on_the_disk_of_one_machine() -> None:
    private = re.compile(r"(?<![\w.:/])/(?:home|root|Users|work|mnt)/\w")
    suffixes = {".py", ".md", ".toml", ".txt", ".cff", ".yml", ".yaml", ".json", ".html", ".sh"}
    texts = [
        path
        for folder in (*SOURCE_FOLDERS, "tests", "docs", ".ci")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and (path.suffix in suffixes or folder == ".ci")
    ]
    texts += [path for path in ROOT.iterdir() if path.is_file() and path.suffix in suffixes]
    assert not {place(path) for path in texts if private.search(path.read_text("utf-8"))}


def definitions(path: Path) -> set[str]:
    """The names that a module defines at file scope."""
    found: set[str] = set()
    for node in tree(path).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_one_file_and_one_entry_of_the_registry(name: str) -> None:
    entry = MODELS[name]
    places = [(REGISTRATION, entry.factory)] + [(TRAINING, entry.recipe)] * bool(entry.recipe)
    for folder, dotted in places:
        module, definition = dotted.split(":")
        assert definition in definitions(ROOT / folder / (module.replace(".", "/") + ".py"))
    trained = ROOT / REGISTRATION / "weights" / name
    assert bool(entry.recipe) == (trained / "models/model.safetensors").is_file()
    assert all((trained / "docs" / doc).is_file() for doc in DOCUMENTED * bool(entry.recipe))


def test_all_models_are_looked_at() -> None:
    assert len(MODELS) >= 8


def test_clients_and_server_name_no_model() -> None:
    strays = {
        f"{place(path)}:{node.lineno} {node.value}"
        for path in sources()
        if place(path).startswith(("SlicerRetReg/", SERVING))
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and node.value in MODELS
    }
    assert not strays
