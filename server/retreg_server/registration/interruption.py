"""A registration can be cancelled while a network runs, not only between its stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


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
