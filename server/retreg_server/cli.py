"""The command line: `retreg VERB …`. Each verb is a module of retreg_server.commands."""

from __future__ import annotations

import argparse
import io
import os
import sys
from importlib import import_module
from importlib.metadata import version
from types import ModuleType

from retreg.errors import Cancelled, InputError, RegistrationError, RetRegError
from retreg_server.commands.exit_status import (
    EXIT_BAD_INPUT,
    EXIT_BUG,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_UNREACHABLE,
)

VERBS = (
    "register", "look", "apply", "convert", "batch", "series", "mosaic", "groupwise",
    "dicomweb-register", "serve", "models", "alive", "token", "demo", "train", "evaluate", "doctor",
)  # fmt: skip
DEBUG_VARIABLE = "RETREG_DEBUG"


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit status.

    0 done; 2 bad input; 3 no trustworthy registration; 4 server trouble; 70 a mistake of the
    program; 130 interrupted. Errors are one sentence on standard error.
    """
    _keep_idle_threads_asleep()
    _print_any_name()
    parser, verb = _parser(sys.argv[1:] if arguments is None else arguments)
    namespace = parser.parse_args(arguments)
    if verb is None:
        parser.print_help()
        return EXIT_BAD_INPUT
    try:
        return int(_module(verb).run(namespace))
    except InputError as error:
        return _complain(error, EXIT_BAD_INPUT)
    except RegistrationError as error:
        return _complain(error, EXIT_FAILED)
    except (KeyboardInterrupt, Cancelled):
        return _complain("Stopped on request.", EXIT_INTERRUPTED)
    except RetRegError as error:
        return _complain(error, EXIT_UNREACHABLE)
    except MemoryError:
        return _complain(
            "The memory does not suffice for these images; close other programs or give smaller "
            "ones.",
            EXIT_BAD_INPUT,
        )
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    """Complain of what no part of the program expected: the system's refusals, or a mistake."""
    if isinstance(error, OSError) and error.errno:
        return _complain(
            f"The system refused to open, read or write a file ({error.strerror}); check the "
            "names, the permissions and the free space.",
            EXIT_BAD_INPUT,
        )
    return _complain(
        f"An unexpected {type(error).__name__} stopped the work, which is a mistake of the "
        f"program; run again with {DEBUG_VARIABLE}=1 and report what it prints.",
        EXIT_BUG,
    )


def _module(verb: str) -> ModuleType:
    return import_module(f"retreg_server.commands.{verb.replace('-', '_')}")


def _keep_idle_threads_asleep() -> None:
    """OpenMP threads that wait busily starve every other process; must precede torch's import."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


def _print_any_name() -> None:
    """Where the letters of a name cannot be printed, as in a pipe on Windows, escape them."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _parser(arguments: list[str]) -> tuple[argparse.ArgumentParser, str | None]:
    """The parser; only the module of the verb in use is imported, so that --help is quick."""
    parser = argparse.ArgumentParser(
        prog="retreg", description="Register fundus pictures and brain volumes."
    )
    parser.add_argument("--version", action="version", version=f"retreg {version('retreg')}")
    verb = next((word for word in arguments if not word.startswith("-")), None)
    subparsers = parser.add_subparsers(metavar="VERB")
    for name in VERBS:
        if verb in (name, None) or verb not in VERBS:
            module = _module(name)
            sub = subparsers.add_parser(name, help=module.HELP, description=module.HELP)
            if name == verb:
                module.add_arguments(sub)
    return parser, verb if verb in VERBS else None


def _complain(message: object, status: int) -> int:
    print(f"retreg: {message}", file=sys.stderr)  # noqa: T201
    return status
