"""The SQLite file with the registrations: opened, checked, brought up to date, put aside.

Several registrations may have one result: results lie by the SHA-256 of their content, leave with
the last registration that has them, and nothing of them is left in the write-ahead log either.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import sqlite3
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from retreg.errors import InputError

logger = logging.getLogger(__name__)

FILE, RESERVE = "registrations.sqlite", "reserve"
SCHEMA_VERSION = 2
RESERVE_BYTES, ROOM_BYTES = 1 << 20, 1 << 17
ROW_BYTES = 1024  # what a registration takes beside its result
KEPT_SHARE = 0.95  # of the limit, when it is reached, so that it is not reached every time
TABLES = (
    "CREATE TABLE IF NOT EXISTS results (digest TEXT PRIMARY KEY, body BLOB)",
    "CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, key TEXT, model TEXT, grid TEXT,"
    " moving TEXT, state TEXT, status INTEGER, slug TEXT, message TEXT, ended REAL, owner TEXT,"
    " digest TEXT)",
    "CREATE INDEX IF NOT EXISTS by_key ON jobs (key)",
    "CREATE INDEX IF NOT EXISTS by_end ON jobs (ended)",
    "CREATE INDEX IF NOT EXISTS by_digest ON jobs (digest)",
    "CREATE TRIGGER IF NOT EXISTS leave AFTER DELETE ON jobs"
    " WHEN NOT EXISTS (SELECT 1 FROM jobs WHERE digest = OLD.digest)"
    " BEGIN DELETE FROM results WHERE digest = OLD.digest; END",
)
FROM_VERSION_1 = (
    ("ALTER TABLE jobs RENAME TO before", "DROP INDEX by_key"),
    (
        "INSERT OR IGNORE INTO results SELECT digest(result), result FROM before"
        " WHERE length(result)",
        "INSERT INTO jobs SELECT id, key, model, grid, moving, state, status, slug, message, ended,"
        " '', digest(result) FROM before",
        "DROP TABLE before",
    ),
)
RULES = (
    "auto_vacuum = FULL",  # what is deleted makes room on the disk
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    "wal_autocheckpoint = 64",  # pages
    "synchronous = NORMAL",
    "secure_delete = ON",
)
REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full; make room on it",
    sqlite3.SQLITE_READONLY: "it can only be read; let the server write there",
    sqlite3.SQLITE_CANTOPEN: "it cannot be written; let the server write there",
    sqlite3.SQLITE_BUSY: "another server uses it; give another one with --state-dir",
}
FAILED = "the disk does not read or write as it should"


@dataclass(frozen=True, eq=False)
class Record:
    """One registration. key: of equal requests; grid: of the fixed image, as JSON text; moving:
    address of that image; status, slug, message: of the error, if any; ended: Unix time; owner:
    name of the token that ordered it."""

    id: str
    key: str
    model: str
    grid: str
    moving: str
    state: str
    status: int = 200
    slug: str = ""
    message: str = ""
    ended: float | None = None
    owner: str = ""
    result: bytes = b""


NAMES = tuple(field.name for field in fields(Record))[:-1]
COLUMNS = ", ".join(NAMES)


class Database:
    """The registrations in one file; used by one thread. Every method may raise sqlite3.Error.

    unfinished: what becomes of registrations that had not ended when the last server did. Raises
    InputError when the file cannot be used, is in use, or is of a newer version. A damaged one is
    put aside.
    """

    def __init__(self, folder: Path, unfinished: Record) -> None:
        self._path = folder / FILE
        self._reserve = folder / RESERVE
        self._spend()  # a full disk must not keep the server from starting
        try:
            self._connection = self._opened()
            self._settle(unfinished)
        except sqlite3.Error as error:
            raise InputError(f"The folder {folder.name} cannot be used: {reason(error)}.") from None
        self._at_most = self.nbytes
        self._save_up()

    def put(self, record: Record) -> None:
        """Keep a registration, or its new state; its result once for all that have the same."""
        digest = _digest(record.result)
        values = [*(getattr(record, name) for name in NAMES), digest]
        changes = ", ".join(f"{name} = excluded.{name}" for name in (*NAMES[1:], "digest"))
        row = (
            f"INSERT INTO jobs ({COLUMNS}, digest) VALUES ({', '.join('?' * len(values))}) "
            f"ON CONFLICT (id) DO UPDATE SET {changes}"
        )

        def work() -> None:
            self._leave_room(len(record.result))
            with self._connection as connection:
                connection.execute("BEGIN")
                if record.result:
                    body = (digest, record.result)
                    connection.execute("INSERT OR IGNORE INTO results VALUES (?, ?)", body)
                connection.execute(row, values)

        try:
            work()
        except sqlite3.OperationalError:  # the log may take the room that is missing
            self._empty_the_log()
            work()
        self._at_most += len(record.result) + ROW_BYTES

    def first(self, condition: str, *values: str) -> Record | None:
        """The newest registration for which that holds; never one with a damaged result."""
        query = (
            f"SELECT {COLUMNS}, jobs.digest, coalesce(body, x'') FROM jobs LEFT JOIN results "
            f"ON jobs.digest = results.digest WHERE {condition} ORDER BY ended DESC LIMIT 1"
        )
        row = self._connection.execute(query, values).fetchone()
        if row is None:
            return None
        *known, digest, body = row
        if _digest(body) == digest:
            return Record(**dict(zip(NAMES, known, strict=True)), result=body)
        logger.error("A result on the disk was damaged and is forgotten.")
        self.remove([str(known[0])])
        return None

    def remove(self, ids: Collection[str]) -> None:
        """Forget registrations, even where the disk is full."""
        if not ids:
            return
        try:
            self._delete(ids)
        except sqlite3.OperationalError:  # deleting takes room, for the log: that of the reserve
            self._spend()
            for each in ids:
                self._delete([each])
        self._save_up()

    def remove_before(self, ended: float) -> None:
        """Forget what ended before that time."""
        rows = self._connection.execute("SELECT id FROM jobs WHERE ended < ?", (ended,))
        self.remove([job_id for (job_id,) in rows.fetchall()])

    def shrink(self, max_bytes: int) -> None:
        """Forget the oldest that have ended when there is too much; never the newest."""
        if self._at_most <= max_bytes:  # counting what there is takes time
            return
        nbytes = self.nbytes
        excess = nbytes - KEPT_SHARE * max_bytes if nbytes > max_bytes else 0
        leaving = []
        rows = self._connection.execute(
            "SELECT id, coalesce(length(body), 0) FROM jobs LEFT JOIN results USING (digest) "
            "WHERE ended < (SELECT max(ended) FROM jobs) ORDER BY ended"
        )
        while excess > 0 and (row := rows.fetchone()) is not None:
            leaving.append(row[0])
            excess -= row[1] + ROW_BYTES
        rows.close()
        self.remove(leaving)
        self._at_most = self.nbytes

    @property
    def nbytes(self) -> int:
        """Of all registrations and results together."""
        query = "SELECT (SELECT count(*) FROM jobs), (SELECT sum(length(body)) FROM results)"
        jobs, results = self._connection.execute(query).fetchone()
        return int(jobs) * ROW_BYTES + int(results or 0)

    def close(self) -> None:
        """Write everything into the one file."""
        with suppress(sqlite3.Error):
            self._connection.close()
        self._spend()

    def _delete(self, ids: Iterable[str]) -> None:
        with self._connection as connection:
            connection.execute("BEGIN")
            connection.executemany("DELETE FROM jobs WHERE id = ?", ((each,) for each in ids))
        self._empty_the_log()

    def _empty_the_log(self) -> None:
        """What was deleted is overwritten in the file, and must not stay in the log."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _leave_room(self, nbytes: int) -> None:
        """Raise the error of a full disk while the log can still be moved into the file."""
        folder, log = self._path.parent, self._path.with_name(FILE + "-wal")
        with suppress(OSError):
            moved = log.stat().st_size if log.exists() else 0
            if shutil.disk_usage(folder).free < moved + 2 * nbytes + ROOM_BYTES:
                error = sqlite3.OperationalError("the disk is nearly full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error

    def _spend(self) -> None:
        with suppress(OSError):
            self._reserve.unlink()

    def _save_up(self) -> None:
        """Take some room of the disk, to be given back when something must be deleted."""
        with suppress(OSError):
            if not self._reserve.exists():
                free = shutil.disk_usage(self._reserve.parent).free
                self._reserve.write_bytes(bytes(min(RESERVE_BYTES, free // 4)))

    def put_aside(self) -> None:
        """Keep a damaged file under another name, and begin anew. May raise OSError."""
        with suppress(sqlite3.Error):
            self._connection.close()
        self._connection = self._without_the_damage()

    def _opened(self) -> sqlite3.Connection:
        try:
            return _connected(self._path)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            return self._without_the_damage()

    def _without_the_damage(self) -> sqlite3.Connection:
        self._at_most = 0
        aside = f"{FILE}.damaged"
        logger.error("The stored results are damaged and put aside as %s.", aside)
        for ending in ("", "-wal"):
            with suppress(FileNotFoundError):
                part = self._path.with_name(FILE + ending)
                part.replace(self._path.with_name(aside + ending))
        return _connected(self._path)

    def _settle(self, unfinished: Record) -> None:
        """What had not ended when the last server did never will; nothing ended in the future."""
        now = unfinished.ended
        self._connection.execute(
            "UPDATE jobs SET state = ?, status = ?, slug = ?, message = ?, ended = ? "
            "WHERE ended IS NULL",
            (unfinished.state, unfinished.status, unfinished.slug, unfinished.message, now),
        )
        self._connection.execute("UPDATE jobs SET ended = ? WHERE ended > ?", (now, now))


def reason(error: sqlite3.Error) -> str:
    """What is wrong, and what to do about it."""
    return REASONS.get(code_of(error), FAILED)


def code_of(error: sqlite3.Error) -> int:
    """The primary result code of SQLite."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is no usable database, wherever it lies."""
    return not isinstance(error, sqlite3.OperationalError)


def is_in_use(path: Path) -> bool:
    """Whether a living server has the file open."""
    try:
        _locked(path).close()
    except sqlite3.Error as error:
        return code_of(error) == sqlite3.SQLITE_BUSY
    return False


def _connected(path: Path) -> sqlite3.Connection:
    """Raises sqlite3.OperationalError for a bad disk, and other sqlite3.Error for a bad file."""
    connection = _locked(path)
    try:
        check = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if check != "ok":
            raise sqlite3.DatabaseError(check)
        _bring_up_to_date(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _locked(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
    try:
        for rule in RULES:
            connection.execute(f"PRAGMA {rule}")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise InputError(
            "The stored results are of a newer version of the server; start that version, or give "
            "another --state-dir."
        )
    has_jobs = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'jobs'").fetchone()
    if has_jobs and version == 0:
        raise sqlite3.DatabaseError("a database of something else")
    connection.create_function("digest", 1, _digest, deterministic=True)
    before, after = FROM_VERSION_1 if version == 1 else ((), ())
    with connection:
        connection.execute("BEGIN EXCLUSIVE")
        for statement in (*before, *TABLES, *after):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _digest(result: bytes) -> str:
    return hashlib.sha256(result).hexdigest() if result else ""
