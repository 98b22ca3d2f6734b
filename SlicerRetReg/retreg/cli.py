"""The door to the command line, which is part of the server: `python -m retreg.cli VERB …`."""

from __future__ import annotations

import sys
from importlib import import_module


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return its exit status; see retreg_server.cli."""
    return int(import_module("retreg_server.cli").main(arguments))


if __name__ == "__main__":
    sys.exit(main())
