"""The devices on which networks can run: which there are, their memory, and how a pass is ended.

torch is imported where it is used: who only names devices does not wait for it.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from retreg.errors import OptionError

if TYPE_CHECKING:
    import torch


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


@contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """Call check before each layer of any network; what it raises ends the pass."""
    from torch.nn.modules.module import register_module_forward_pre_hook

    def before_layer(_module: Any, _inputs: Any) -> None:
        check()

    hook = register_module_forward_pre_hook(before_layer)
    try:
        yield
    finally:
        hook.remove()


def thread_count() -> int:
    """How many threads torch uses on the CPU."""
    import torch

    return torch.get_num_threads()


def cuda_devices() -> tuple[str, ...]:
    """Name and memory of each usable CUDA device."""
    import torch

    if not torch.cuda.is_available():
        return ()
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return tuple(f"{each.name}, {each.total_memory / 2**30:.0f} GiB" for each in found)


def chosen_device(name: str) -> torch.device:
    """One of options.DEVICES. Raises OptionError when CUDA is asked for and missing."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("No CUDA device can be used here; choose the device auto or cpu.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
