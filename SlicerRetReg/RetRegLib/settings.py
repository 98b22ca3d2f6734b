"""What RetReg remembers from one start of Slicer to the next."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

PREFIX = "RetReg/"


class Settings(MutableMapping[str, str]):
    """Texts by name in a QSettings, such as slicer.app.userSettings(), below RetReg/."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getitem__(self, name: str) -> str:
        if not self._store.contains(PREFIX + name):
            raise KeyError(name)
        return str(self._store.value(PREFIX + name))

    def __setitem__(self, name: str, value: str) -> None:
        self._store.setValue(PREFIX + name, value)

    def __delitem__(self, name: str) -> None:
        if not self._store.contains(PREFIX + name):
            raise KeyError(name)
        self._store.remove(PREFIX + name)

    def __iter__(self) -> Iterator[str]:
        known = [key for key in self._store.allKeys() if key.startswith(PREFIX)]
        return iter([key[len(PREFIX) :] for key in known])

    def __len__(self) -> int:
        return len(list(iter(self)))
