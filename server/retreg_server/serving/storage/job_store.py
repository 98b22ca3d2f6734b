"""What outlives a restart: registrations and their results, in one SQLite file.

The file is locked for as long as the server runs, so that no two servers share a folder. Every
call runs on one thread of its own: the event loop never waits for the disk. What the disk does not
take is kept in memory until it does.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import TypeVar

from retreg.errors import InputError, ServerError
from retreg_server.serving.storage.database import (
    FAILED,
    FILE,
    ROW_BYTES,
    Database,
    Record,
    is_damage,
    is_in_use,
    reason,
)

logger = logging.getLogger(__name__)

SCRATCH, PREFIX = "scratch", "retreg-server-"
YOUNG_S = 60.0
INTERRUPTED = "interrupted"
INTERRUPTION = "The server was stopped before the registration had ended; order it again."
IN_THE_WAY = "a file or a link is in its place"
WHY = {
    errno.EEXIST: IN_THE_WAY,
    errno.ENOTDIR: IN_THE_WAY,
    errno.ELOOP: IN_THE_WAY,
    errno.ENOSPC: "the disk is full",
    errno.EROFS: "the disk can only be read",
    errno.EACCES: "the server may not write there",
}
Found = TypeVar("Found")


def steady_clock() -> Callable[[], float]:
    """Unix time that goes on evenly, whatever is done to the clock of the machine meanwhile."""
    ahead = time.time() - time.monotonic()
    return lambda: ahead + time.monotonic()


class Store:
    """The registrations in a folder; None makes a folder that is removed at the end.

    max_bytes: of all registrations together. keep_s: seconds for which one stays after its end.
    Raises InputError when the folder cannot be used or belongs to another server.
    """

    def __init__(
        self,
        folder: Path | None,
        max_bytes: int,
        keep_s: float,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._is_temporary = folder is None
        if folder is None:
            _sweep()
            folder = Path(mkdtemp(prefix=PREFIX))
        self.folder = folder
        self._max_bytes = max_bytes
        self._keep_s = keep_s
        self._now = clock or steady_clock()
        _make_folder(folder)
        unfinished = replace(interrupted(Record("", "", "", "", "", "")), ended=self._now())
        self._database = Database(folder, unfinished)
        self.scratch = folder / SCRATCH
        try:
            _empty(self.scratch)
        except InputError:
            self._database.close()
            raise
        self._unwritten: dict[str, Record] = {}
        self._unforgotten: set[str] = set()
        self._trouble = ""
        self._thread = ThreadPoolExecutor(1, "store")

    async def add(self, record: Record) -> None:
        """Keep a new registration, or the new state of one."""
        if record.state not in ("queued", "running"):
            record = replace(record, ended=self._now())

        def work() -> None:
            self._unwritten[record.id] = record
            self._catch_up()

        await self._on_thread(work)

    async def get(self, job_id: str) -> Record | None:
        """The registration of that id."""

        def work() -> Record | None:
            if job_id in self._unforgotten:
                return None
            return self._unwritten.get(job_id) or self._first("id = ?", job_id)

        return await self._on_thread(work)

    async def answered(self, key: str) -> Record | None:
        """A registration that ended well and answers equal requests."""

        def work() -> Record | None:
            unwritten = (record for record in self._unwritten.values() if record.key == key)
            found = next((record for record in unwritten if record.state == "done"), None)
            found = found or self._first("key = ? AND state = 'done'", key)
            return None if found is None or found.id in self._unforgotten else found

        return await self._on_thread(work)

    async def remove(self, job_id: str) -> None:
        """Forget a registration; one that the disk does not let go is told to nobody any more."""

        def work() -> None:
            self._unwritten.pop(job_id, None)
            self._unforgotten.add(job_id)
            self._catch_up()

        await self._on_thread(work)

    async def expire(self) -> None:
        """Forget what is too old, and write what could not be written."""

        def work() -> None:
            oldest = self._now() - self._keep_s
            for record in list(self._unwritten.values()):
                if record.ended is not None and record.ended < oldest:
                    del self._unwritten[record.id]
            self._catch_up(oldest)

        await self._on_thread(work)

    @property
    def unwritten(self) -> int:
        """How many registrations the disk has not taken."""
        return len(self._unwritten)

    async def trouble(self) -> str:
        """Why results cannot be written now, in a sentence; nothing when they can."""

        def work() -> str:
            if self._trouble:
                self._catch_up()
            return self._trouble

        return await self._on_thread(work)

    def close(self) -> None:
        """Write everything and let others use the folder; again does nothing."""
        with suppress(RuntimeError):  # closed before
            self._thread.submit(self._catch_up)
        self._thread.shutdown()
        self._database.close()
        shutil.rmtree(self.folder if self._is_temporary else self.scratch, ignore_errors=True)

    async def _on_thread(self, work: Callable[[], Found]) -> Found:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _first(self, condition: str, value: str) -> Record | None:
        """Raises ServerError when the disk cannot be read."""
        try:
            return self._database.first(condition, value)
        except sqlite3.Error as error:
            self._note(error)
            if is_damage(error):
                return None
            raise ServerError(f"The results cannot be read: {reason(error)}.") from None

    def _catch_up(self, oldest: float | None = None) -> None:
        """Bring the disk to the state that clients know; what fails is tried again later."""
        for _ in range(2):  # once more when the file was damaged and a new one has begun
            try:
                self._database.remove(self._unforgotten)
                self._unforgotten.clear()
                if oldest is not None:
                    self._database.remove_before(oldest)
                for record in list(self._unwritten.values()):
                    self._database.put(record)
                    del self._unwritten[record.id]
                self._database.shrink(self._max_bytes)
                self._trouble = ""
                return
            except sqlite3.Error as error:
                self._note(error)

    def _note(self, error: sqlite3.Error) -> None:
        """Log a new trouble once, and begin anew where the file is damaged."""
        if is_damage(error):
            with suppress(sqlite3.Error, OSError):
                self._database.put_aside()
                return
        sentence = f"Results cannot be written, but are kept in memory: {reason(error)}."
        if sentence != self._trouble:
            logger.error("%s", sentence)
        self._trouble = sentence
        self._shed()

    def _shed(self) -> None:
        """What the memory keeps for the disk is bounded as the disk is; the oldest leave."""
        ended = [record for record in self._unwritten.values() if record.ended is not None]
        size = sum(len(record.result) + ROW_BYTES for record in ended)
        for record in ended[:-1]:
            if size <= self._max_bytes:
                return
            size -= len(record.result) + ROW_BYTES
            del self._unwritten[record.id]


def interrupted(record: Record) -> Record:
    """The same registration, ended by the end of the server."""
    return replace(record, state="failed", status=503, slug=INTERRUPTED, message=INTERRUPTION)


def _make_folder(folder: Path) -> None:
    """Raises InputError that says what is in the way."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / "probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _unusable(folder, WHY.get(error.errno or 0, FAILED)) from None


def _empty(folder: Path) -> None:
    """Raises InputError for a link: it would be another folder that is emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.is_symlink():
        raise _unusable(folder, IN_THE_WAY)
    _make_folder(folder)


def _unusable(folder: Path, why: str) -> InputError:
    return InputError(
        f"The folder {folder.name} for results cannot be used: {why}; give another one with "
        "--state-dir."
    )


def _sweep() -> None:
    """Remove the temporary folders of servers that were killed; a living one holds its lock."""
    for folder in Path(gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            is_young = folder.stat().st_mtime > time.time() - YOUNG_S  # it may be starting
            store = folder / FILE
            if is_young or folder.is_symlink() or not store.exists() or is_in_use(store):
                continue
            shutil.rmtree(folder, ignore_errors=True)
