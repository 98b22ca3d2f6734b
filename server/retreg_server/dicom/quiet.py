"""Libraries that write what they meet into the log: UIDs, and values that are not valid."""

from __future__ import annotations

import logging
import warnings


def keep_libraries_quiet() -> None:
    """For a process of its own, whose errors are told by its parent, without patients."""
    warnings.simplefilter("ignore")
    for name in ("pynetdicom", "pydicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
