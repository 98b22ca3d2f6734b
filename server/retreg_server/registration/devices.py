"""The devices on which networks can run."""

from __future__ import annotations


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
