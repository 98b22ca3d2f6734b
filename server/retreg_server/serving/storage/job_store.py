"""What outlives a restart: registrations and their results, in one SQLite file.

The database is locked for as long as the server runs, so that no two servers share a folder.
Every call runs on one thread of its own: the event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any, TypeVar

from retreg.errors import InputError

FILE, SCRATCH, PREFIX = "registrations.sqlite", "scratch", "retreg-server-"
SCHEMA_VERSION = 1
YOUNG_S = 60.0
INTERRUPTED = "interrupted"
INTERRUPTION = "The server was stopped before the registration had ended; order it again."
COLUMNS = "id, key, model, grid, moving, state, status, slug, message, result, ended"
Found = TypeVar("Found")


@dataclass(frozen=True, eq=False)
class Record:
    """One registration. key: of equal requests; grid: of the fixed image, as JSON text; moving:
    address of that image; status, slug, message: of the error, if any; ended: Unix time."""

    id: str
    key: str
    model: str
    grid: str
    moving: str
    state: str
    status: int = 200
    slug: str = ""
    message: str = ""
    result: bytes = b""
    ended: float | None = None


class Store:
    """The registrations in a folder; None makes a folder that is removed at the end.

    max_bytes: of all results together. keep_s: seconds for which a result stays.
    Raises InputError when the folder cannot be used or belongs to another server.
    """

    def __init__(self, folder: Path | None, max_bytes: int, keep_s: float) -> None:
        self._is_temporary = folder is None
        if folder is None:
            _sweep()
            folder = Path(mkdtemp(prefix=PREFIX))
        self._folder = folder
        self._max_bytes = max_bytes
        self._keep_s = keep_s
        self._database = _opened(folder)
        self.scratch = folder / SCRATCH
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(mode=0o700)
        self._thread = ThreadPoolExecutor(1, "store")
        self._interrupt()

    async def add(self, record: Record) -> None:
        """Keep a new registration, or the new state of one."""
        values = [getattr(record, name) for name in COLUMNS.split(", ")]
        marks = ", ".join("?" for _ in values)
        query = f"INSERT OR REPLACE INTO jobs ({COLUMNS}) VALUES ({marks})"
        await self._on_thread(lambda database: database.execute(query, values))

    async def get(self, job_id: str) -> Record | None:
        """The registration of that id."""
        return await self._first("id = ?", job_id)

    async def answered(self, key: str) -> Record | None:
        """A registration that ended well and answers equal requests."""
        return await self._first("key = ? AND state = 'done'", key)

    async def remove(self, job_id: str) -> None:
        """Forget a registration."""
        await self._on_thread(lambda db: db.execute("DELETE FROM jobs WHERE id = ?", (job_id,)))

    async def expire(self) -> None:
        """Forget what is too old, and the oldest while there is too much."""
        await self._on_thread(self._expire)

    def close(self) -> None:
        """Write everything and let others use the folder."""
        self._thread.shutdown()
        self._database.close()
        shutil.rmtree(self._folder if self._is_temporary else self.scratch, ignore_errors=True)

    async def _first(self, condition: str, value: str) -> Record | None:
        query = f"SELECT {COLUMNS} FROM jobs WHERE {condition} ORDER BY ended DESC LIMIT 1"
        row = await self._on_thread(lambda db: db.execute(query, (value,)).fetchone())
        return None if row is None else Record(*row)

    async def _on_thread(self, work: Callable[[sqlite3.Connection], Found]) -> Found:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, work, self._database)

    def _interrupt(self) -> None:
        """What had not ended when the last server did will not end any more."""
        self._database.execute(
            "UPDATE jobs SET state = 'failed', status = 503, slug = ?, message = ?, ended = ? "
            "WHERE ended IS NULL",
            (INTERRUPTED, INTERRUPTION, time.time()),
        )

    def _expire(self, database: sqlite3.Connection) -> None:
        database.execute("DELETE FROM jobs WHERE ended < ?", (time.time() - self._keep_s,))
        total = 0
        rows = database.execute(
            "SELECT id, length(result) FROM jobs WHERE ended IS NOT NULL ORDER BY ended DESC"
        ).fetchall()
        for job_id, size in rows:
            total += size + 1024
            if total > self._max_bytes:
                database.execute("DELETE FROM jobs WHERE id = ?", (job_id,))


def interrupted(record: Record) -> Record:
    """The same registration, ended by the end of the server."""
    now = time.time()
    return replace(
        record, state="failed", status=503, slug=INTERRUPTED, message=INTERRUPTION, ended=now
    )


def _opened(folder: Path) -> sqlite3.Connection:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return _database(folder / FILE)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # not a database any more: keep it aside, and begin anew
            (folder / FILE).replace(folder / f"{FILE}.damaged")
            return _database(folder / FILE)
    except sqlite3.OperationalError:
        raise InputError(
            f"The folder {folder.name} is in use by another server; give another --state-dir."
        ) from None
    except OSError:
        raise InputError(
            f"The folder {folder.name} cannot be written; give another one with --state-dir."
        ) from None


def _database(path: Path) -> sqlite3.Connection:
    database: Any = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA secure_delete = ON")
        database.execute("BEGIN EXCLUSIVE")
        if database.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
            database.execute("DROP TABLE IF EXISTS jobs")
        database.execute(
            "CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, key TEXT, model TEXT, grid TEXT,"
            " moving TEXT, state TEXT, status INTEGER, slug TEXT, message TEXT, result BLOB,"
            " ended REAL)"
        )
        database.execute("CREATE INDEX IF NOT EXISTS by_key ON jobs (key)")
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        database.execute("COMMIT")
    except sqlite3.Error:
        database.close()
        raise
    return database


def _sweep() -> None:
    """Remove the temporary folders of servers that were killed; a living one holds its lock."""
    for folder in Path(gettempdir()).glob(f"{PREFIX}*"):
        try:
            is_young = folder.stat().st_mtime > time.time() - YOUNG_S  # it may be starting
            if is_young or folder.is_symlink() or not (folder / FILE).exists():
                continue
            _database(folder / FILE).close()
        except (sqlite3.Error, OSError):
            continue
        shutil.rmtree(folder, ignore_errors=True)
