"""What RetReg remembers from one start of Slicer to the next."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

PREFIX = "RetReg/"


class Settings(MutableMapping[str, str]):
    """Texts by name, kept below RetReg/ in a QSettings such as slicer.app.userSettings()."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getitem__(self, name: str) -> str:
        return str(self._store.value(self._key(name)))

    def __setitem__(self, name: str, value: str) -> None:
        self._store.setValue(PREFIX + name, value)

    def __delitem__(self, name: str) -> None:
        self._store.remove(self._key(name))

    def __iter__(self) -> Iterator[str]:
        keys = [str(key) for key in self._store.allKeys()]
        return iter([key[len(PREFIX) :] for key in keys if key.startswith(PREFIX)])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _key(self, name: str) -> str:
        if not self._store.contains(PREFIX + name):
            raise KeyError(name)
        return PREFIX + name
