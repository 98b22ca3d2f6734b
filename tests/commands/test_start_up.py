"""The command line starts with what it needs: torch takes seconds, and most verbs do without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from retreg.files import write_image
from retreg_server.phantoms.fundus import make_fundus_pair

HEAVY = ("torch", "monai", "scipy", "fastapi", "matplotlib")
RUN = (
    "import sys\n"
    "from retreg_server.cli import main\n"
    "try:\n"
    "    status = main(sys.argv[2:])\n"
    "except SystemExit as end:\n"
    "    status = end.code\n"
    "print('LOADED', *(name for name in sys.argv[1].split(',') if name in sys.modules))\n"
    "sys.exit(status)\n"
)


def loaded(*arguments: str) -> list[str]:
    """Which of HEAVY a process has loaded that ran the command with success."""
    command = [sys.executable, "-c", RUN, ",".join(HEAVY), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["register", "--help"]])
def test_what_only_tells_something_loads_no_engine(arguments):
    assert loaded(*arguments) == []


def test_a_retina_is_registered_without_torch(tmp_path: Path):
    pair = make_fundus_pair(3, size=512)
    write_image(tmp_path / "fixed.png", pair.fixed)
    write_image(tmp_path / "moving.png", pair.moving)
    files = str(tmp_path / "fixed.png"), str(tmp_path / "moving.png")
    assert loaded("register", *files, "-o", str(tmp_path / "out")) == []


def test_the_check_sees_what_is_loaded():
    done = subprocess.run(
        [sys.executable, "-c", "import scipy\n" + RUN, ",".join(HEAVY), "--help"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1].split()[1:] == ["scipy"]
