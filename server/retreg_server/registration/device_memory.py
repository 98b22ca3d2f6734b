"""Memory of this process and its CUDA device: how much is in use, and giving back what is not."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def free_memory() -> None:
    """Give back what torch keeps for later use on a CUDA device, and on Linux the free heap."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # other C libraries than glibc do it by themselves
            ctypes.CDLL(None).malloc_trim(0)


def memory_in_use() -> int:
    """Bytes that torch has allocated on the current CUDA device; 0 without one."""
    import torch

    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
