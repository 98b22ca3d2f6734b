"""`retreg doctor`: what is installed, which device there is, can the server be reached."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from retreg.errors import RetRegError
from retreg.reachability import steps
from retreg_server.serving.setting_sources import token

HELP = "check the installation, the device and a server"
PACKAGE = "retreg"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    ok: bool
    subject: str
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("--server", metavar="URL", help="also check the way to this server")
    parser.add_argument("--token-file", type=Path, help="file with the token of the server")
    parser.add_argument("--ca-file", type=Path, help="PEM file with the authority of its TLS")


def run(args: argparse.Namespace) -> int:
    """Print the report; 0 when all is well, 1 otherwise."""
    well = True
    for finding in findings(args.server, args.token_file, args.ca_file):
        mark = "ok  " if finding.ok else "FAIL"
        sys.stdout.write(f"{mark}  {finding.subject:<24}{finding.text}\n")
        sys.stdout.flush()
        well = well and finding.ok
    return 0 if well else 1


def findings(
    server: str | None, token_file: Path | None, ca_file: Path | None = None
) -> Iterator[Finding]:
    """Everything that is checked, one after the other."""
    yield Finding(True, "Python", f"{platform.python_version()} on {platform.platform()}")
    for package in packages():
        yield _installed(package)
    yield _checked("CPU", _cpu)
    yield _checked("CUDA", _cuda)
    yield Finding(True, "free memory", _free_memory())
    yield from _models()
    if server:
        yield from server_findings(server, token_file, ca_file)


def packages() -> Iterator[str]:
    """This package and those it needs by its own metadata, without its extras."""
    yield PACKAGE
    with suppress(PackageNotFoundError):
        for requirement in requires(PACKAGE) or ():
            if "extra ==" not in requirement:
                yield re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def server_findings(
    url: str, token_file: Path | None, ca_file: Path | None = None
) -> Iterator[Finding]:
    """The steps to a server, up to and including the first that fails."""
    for step in steps(url, token(token_file), ca_file):
        yield Finding(step.ok, f"server: {step.name}", step.sentence)


def _checked(subject: str, check: Callable[[], str]) -> Finding:
    """What a check finds; its exception becomes a failure in words."""
    try:
        return Finding(True, subject, check())
    except RetRegError as error:
        return Finding(False, subject, str(error))
    except (OSError, ImportError) as error:
        return Finding(False, subject, f"{error or type(error).__name__}")


def _installed(package: str) -> Finding:
    try:
        return Finding(True, package, version(package))
    except PackageNotFoundError:
        return Finding(False, package, "is not installed; install the project again")


def _cpu() -> str:
    from retreg_server.registration.networks.devices import thread_count

    return f"{os.cpu_count()} cores, {thread_count()} threads used by torch"


def _cuda() -> str:
    from retreg_server.registration.networks.devices import cuda_devices

    return "; ".join(cuda_devices()) or "none; the CPU is used"


def _free_memory() -> str:
    try:
        pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows, nor on every Unix
        return "unknown on this system"
    return f"{pages / 2**30:.1f} GiB"


def _models() -> Iterator[Finding]:
    from retreg_server.registration.registry import load_catalogue

    catalogue = load_catalogue()
    for model in catalogue.models:
        yield Finding(True, f"model {model.name}", "loads")
    for name, reason in catalogue.failures.items():
        yield Finding(False, f"model {name}", f"does not load: {reason}")
