"""The devices on which networks can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retreg.errors import OptionError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")


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
    """One of DEVICES; auto is CUDA where there is one. Raises OptionError when it is missing."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("No CUDA device can be used here; choose the device auto or cpu.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
