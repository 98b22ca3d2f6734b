"""What a call costs: wall time, processor time, memory."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

PROCESS = Path("/proc/self")


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, processor seconds of all threads, and the highest resident memory.

    peak_mb is NaN where the system does not tell.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float


def measured(call: Callable[[], Result]) -> tuple[Result | Exception, Cost]:
    """What the call returned or raised (not KeyboardInterrupt and the like), and its cost."""
    _forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        result: Result | Exception = call()
    except Exception as error:  # one failed pair must not end a benchmark
        result = error
    cost = Cost(time.perf_counter() - wall, time.process_time() - cpu, _peak_mb())
    return result, cost


def _forget_peak() -> None:
    """Start the high-water mark of the resident memory anew (Linux)."""
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return


def _peak_mb() -> float:
    try:
        peak = re.search(r"VmHWM:\s+(\d+)", (PROCESS / "status").read_text())
    except OSError:
        peak = None
    return float(peak.group(1)) / 1024 if peak else float("nan")
