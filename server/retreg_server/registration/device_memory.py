"""The memory of a CUDA device: how much is in use, and giving back what is not."""

from __future__ import annotations


def free_memory() -> None:
    """Give the memory back that torch keeps for later use on a CUDA device."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def memory_in_use() -> int:
    """Bytes that torch has allocated on the current CUDA device; 0 without one."""
    import torch

    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
