"""What the command line answers to the shell."""

from __future__ import annotations

EXIT_BAD_INPUT = 2
EXIT_FAILED = 3
EXIT_UNREACHABLE = 4
EXIT_BUG = 70
EXIT_INTERRUPTED = 130
