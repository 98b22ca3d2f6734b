"""The extension as CMake installs it: complete, and usable from where it was installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "SlicerRetReg"
STAND_IN = Path(__file__).with_name("cmake")
INSTALLED = Path("lib/qt-scripted-modules")
NOT_INSTALLED = ("CMakeLists.txt", "Testing/", "retreg/py.typed")
WHEEL = "retreg-9.9-py3-none-any.whl"
IMPORT_ALL = """
import importlib, sys
of_the_application = "qt", "ctk", "slicer.i18n"
sys.path[:] = [{installed!r}] + [p for p in sys.path if p and "SlicerRetReg" not in p]
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
imported = []
for name in {names!r}:
    try:
        imported.append(importlib.import_module(name))
    except ModuleNotFoundError as error:
        assert error.name in of_the_application, error
assert all(module.__file__.startswith({installed!r}) for module in imported)
assert "torch" not in sys.modules and "requests" not in sys.modules
print(len(imported))
"""


def listed() -> set[str]:
    text = (MODULE / "CMakeLists.txt").read_text("utf-8")
    variables = re.findall(r"set\(MODULE_PYTHON_\w+\n(.*?)\)", text, re.DOTALL)
    assert len(variables) == 2
    lines = [line.strip() for block in variables for line in block.splitlines() if line.strip()]
    assert len(lines) == len(set(lines)), "a file is listed twice"
    return {line.replace("${MODULE_NAME}", "RetReg") for line in lines}


def on_disk() -> set[str]:
    files = (path for path in MODULE.rglob("*") if path.is_file())
    names = {path.relative_to(MODULE).as_posix() for path in files}
    built = ("__pycache__", ".whl")
    return {n for n in names if not n.startswith(NOT_INSTALLED) and not any(b in n for b in built)}


def test_every_file_of_the_module_is_listed_and_every_listed_file_exists() -> None:
    assert listed() == on_disk()


def cmake() -> str:
    beside_python = Path(sys.executable).with_name("cmake")
    found = str(beside_python) if beside_python.exists() else shutil.which("cmake")
    if not found:
        pytest.skip("cmake is not installed")
    return found


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of scripted modules after cmake --install."""
    folder = tmp_path_factory.mktemp("extension")
    build, prefix = folder / "build", folder / "installed"
    wheel = folder / WHEEL
    wheel.write_bytes(b"stands in for the server")
    source = [f"-DSlicer_DIR={STAND_IN}", "-DBUILD_TESTING=ON", f"-DRETREG_WHEEL={wheel}", "-S",
              str(ROOT), "-B", str(build)]  # fmt: skip
    for arguments in (source, ["--install", str(build), "--prefix", str(prefix)]):
        done = subprocess.run([cmake(), *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return prefix / INSTALLED


def test_the_installed_extension_holds_the_module_and_its_resources(installed: Path) -> None:
    files = {p.relative_to(installed).as_posix() for p in installed.rglob("*") if p.is_file()}
    assert files == listed() | {f"Resources/Server/{WHEEL}"}


@pytest.mark.usefixtures("slicer")
def test_the_installed_library_imports_without_the_repository(
    installed: Path, tmp_path: Path
) -> None:
    scripts = [p.relative_to(installed) for p in installed.rglob("*.py")]
    names = {".".join(p.with_suffix("").parts).removesuffix(".__init__") for p in scripts}
    code = IMPORT_ALL.format(installed=str(installed), names=sorted(names))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 60, "too few modules do without the application"


def test_the_extensions_index_file_and_the_project_belong_together() -> None:
    entry = json.loads((ROOT / "RetReg.json").read_text("utf-8"))
    text = (ROOT / "CMakeLists.txt").read_text("utf-8")
    assert f"project({(ROOT / 'RetReg.json').stem})" in text
    assert set(entry) >= {"$schema", "category", "scm_url"}
    assert entry["category"] == "Registration"
    repository = entry["scm_url"].rstrip("/").rsplit("/", 1)[1]
    assert repository.startswith("Slicer")
    pages = re.search(r'set\(EXTENSION_SCREENSHOTURLS "([^"]+)"\)', text)
    icon = re.search(r'set\(EXTENSION_ICONURL "([^"]+)"\)', text)
    assert pages is not None
    assert icon is not None
    for url in (*pages[1].split(), icon[1]):
        place = url.split("/main/", 1)[1]
        assert (ROOT / place).is_file(), f"{place} is promised to the Extensions Manager"


def test_no_cpp_source_makes_the_extension_need_a_compiler() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    assert not [n for n in tracked.splitlines() if n.endswith((".cxx", ".cpp", ".h", ".hxx"))]
