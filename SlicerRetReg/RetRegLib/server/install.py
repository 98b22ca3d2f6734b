"""Installing the server's packages into a folder of their own."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from retreg.errors import InputError, ServerError
from retreg.progress import Progress

CHECKOUT = Path(__file__).resolve().parents[3]
SHIPPED = Path(__file__).resolve().parents[2] / "Resources" / "Server"
SIZES = {
    "linux": "about 3 GB are downloaded and 7 GB of disk are used, for it includes CUDA",
    "other": "about 0.6 GB are downloaded and 2 GB of disk are used",
}
LONGEST_STAGE = 80


@dataclass(frozen=True)
class InstallPlan:
    """What an installation does. folder: is replaced. commands: are run one after the other."""

    folder: Path
    commands: tuple[tuple[str, ...], ...]
    size: str

    @property
    def text(self) -> str:
        """For the user to agree to."""
        commands = "\n".join(" ".join(command) for command in self.commands)
        return (
            f"The server and its packages (PyTorch, MONAI and others) will be installed into\n"
            f"{self.folder}\nwith\n{commands}\nWhat is there is replaced, Slicer itself is not "
            f"changed, and deleting the folder undoes it. Roughly: {self.size}. It takes minutes."
        )


def default_folder() -> Path:
    """Where programs of this user keep what they install."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "retreg" / "slicer-server"


def plan_of(
    folder: Path, python: str, shipped: Path = SHIPPED, checkout: Path = CHECKOUT
) -> InstallPlan:
    """How pip installs the server into a folder: always from files that came with this module.

    shipped: holds the wheel of the server, and requirements.txt with the exact version and hashes
    of everything else. Without a wheel the checkout is installed, with the versions of its
    constraints.txt. The server is never asked for by its name: no index has a package of ours, and
    whoever took the name there would run on this machine.
    pip's --target needs no virtual environment, which Slicer's interpreter cannot make: its
    launcher sets PYTHONHOME. Raises InputError where neither wheel nor checkout is there.
    """
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--target", str(folder))
    size = SIZES["linux" if sys.platform == "linux" else "other"]
    wheels = sorted(shipped.glob("retreg-*.whl"))
    constraints = checkout / "constraints.txt"
    if wheels:
        pinned = ("--require-hashes", "-r", str(shipped / "requirements.txt"))
        own = ("--no-index", "--no-deps", str(wheels[-1]))
        return InstallPlan(folder, ((*pip, *pinned), (*pip, *own)), size)
    if constraints.is_file() and (checkout / "pyproject.toml").is_file():
        return InstallPlan(folder, ((*pip, "-c", str(constraints), str(checkout)),), size)
    raise InputError(
        "This copy of the module came without the server, so it cannot be installed here; install "
        "the extension again, or enter the address of a server that runs elsewhere."
    )


def make_folder(folder: Path) -> None:
    """Make a folder unless there is one. Raises ServerError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServerError(
            f"The folder {folder} cannot be made ({error.strerror}); check the disk and who may "
            "write there."
        ) from error


def install(plan: InstallPlan, environment: Mapping[str, str], tell: Progress | None) -> None:
    """Run the commands of a plan; on failure and when tell raises, nothing is left."""
    shutil.rmtree(plan.folder, ignore_errors=True)
    make_folder(plan.folder)
    try:
        for command in plan.commands:
            _run(command, plan.folder, environment, tell)
    except BaseException:
        shutil.rmtree(plan.folder, ignore_errors=True)
        raise


def _run(
    command: tuple[str, ...], folder: Path, environment: Mapping[str, str], tell: Progress | None
) -> None:
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(environment),
            text=True,
            errors="replace",
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise ServerError(
            f"{command[0]} cannot be run ({error.strerror}); choose another Python."
        ) from error
    with process:
        try:
            words = _follow(process, tell)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise ServerError(
            "The server could not be installed; check the network and the free disk space. pip "
            f"said: {words}"
        )


def _follow(process: subprocess.Popen[str], tell: Progress | None) -> str:
    """Tell every line; returns the last one, or the last that speaks of an error."""
    assert process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_copy_lines, args=(process.stdout, lines), daemon=True).start()
    said, complaint = "nothing.", ""
    line: str | None = ""
    while line is not None:
        with suppress(queue.Empty):
            line = lines.get(timeout=0.2)
        if line:
            said = line.strip()[:LONGEST_STAGE]
            complaint = said if "error" in said.lower() else complaint
        if tell is not None:
            tell(said, 0.0)
    process.wait()
    return complaint or said


def _copy_lines(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        if line.strip():
            lines.put(line)
    lines.put(None)
