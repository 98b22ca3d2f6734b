"""What the disk may do to the results: full, read-only, damaged, of another version, in the way."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from retreg import wire
from retreg.errors import InputError
from retreg_server.serving.settings import Settings
from retreg_server.serving.storage import database
from retreg_server.serving.storage.database import FILE, Database, Record
from retreg_server.serving.storage.job_store import Store

PLENTY = 2**30
VERSION_1 = (
    "CREATE TABLE jobs (id TEXT PRIMARY KEY, key TEXT, model TEXT, grid TEXT, moving TEXT,"
    " state TEXT, status INTEGER, slug TEXT, message TEXT, result BLOB, ended REAL)"
)


def a_record(number: int, result: bytes | None = None, state: str = "done") -> Record:
    body = random.Random(number).randbytes(40_000) if result is None else result
    return Record(f"{number:032x}", f"key {number}", "auto-brain", "{}", "", state, result=body)


def filled(folder: Path, *records: Record, max_bytes: int = PLENTY, **more) -> Store:
    store = Store(folder, max_bytes, 3600, **more)
    for record in records:
        asyncio.run(store.add(record))
    return store


def kept(store: Store, number: int) -> bytes | None:
    found = asyncio.run(store.get(f"{number:032x}"))
    return None if found is None else found.result


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@contextmanager
def files_of_at_most(nbytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def a_small_disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if os.name == "nt" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_results_that_a_full_disk_does_not_take_are_kept_in_memory(tmp_path, caplog):
    with files_of_at_most(300_000):
        store = filled(tmp_path, *map(a_record, range(20)))
        assert "kept in memory" in asyncio.run(store.trouble())
        for number in range(20):
            assert kept(store, number) == a_record(number).result
        asyncio.run(store.remove(f"{3:032x}"))
        assert kept(store, 3) is None
    assert len([each for each in caplog.records if each.levelno >= logging.ERROR]) == 1
    assert asyncio.run(store.trouble()) == ""
    store.close()
    again = filled(tmp_path)
    assert [kept(again, n) is not None for n in range(20)] == [n != 3 for n in range(20)]
    again.close()


def test_on_a_disk_of_a_megabyte_all_can_be_read_deleted_and_begun_again(a_small_disk):
    folder = a_small_disk / "state"
    store = filled(folder, *map(a_record, range(60)))
    assert "disk is full" in asyncio.run(store.trouble())
    assert all(kept(store, number) == a_record(number).result for number in range(60))
    for number in range(50):
        asyncio.run(store.remove(f"{number:032x}"))
        assert kept(store, number) is None
    assert asyncio.run(store.trouble()) == ""
    store.close()
    (a_small_disk / "filling").write_bytes(bytes(2**18))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        (a_small_disk / "more").write_bytes(bytes(2**20))
    (a_small_disk / "filling").unlink()  # what is left is the little that was free
    again = filled(folder)
    assert all(kept(again, number) == a_record(number).result for number in range(50, 60))
    again.close()


def test_memory_holds_no_more_for_a_full_disk_than_the_disk_would(tmp_path):
    with files_of_at_most(100_000):
        store = filled(tmp_path, *map(a_record, range(20)), max_bytes=400_000)
        found = [number for number in range(20) if kept(store, number)]
    assert found[-1] == 19
    assert 5 <= len(found) <= 12
    store.close()


def test_a_disk_that_becomes_read_only_is_told(tmp_path):
    store = filled(tmp_path, a_record(0))
    store._database._connection.execute("PRAGMA query_only = ON")
    asyncio.run(store.add(a_record(1)))
    assert "can only be read" in asyncio.run(store.trouble())
    asyncio.run(store.remove(f"{0:032x}"))
    assert kept(store, 0) is None
    assert kept(store, 1) == a_record(1).result
    store._database._connection.execute("PRAGMA query_only = OFF")
    assert asyncio.run(store.trouble()) == ""
    store.close()


def test_a_read_only_folder_is_refused_in_words(a_small_disk):
    filled(a_small_disk / "state", a_record(0)).close()
    subprocess.run(["mount", "-o", "remount,ro", str(a_small_disk)], check=True)
    with pytest.raises(InputError, match=r"can only be read; give another one with --state-dir\.$"):
        filled(a_small_disk / "state")


def damaged(path: Path, pages: Callable[[int], bool]) -> None:
    """Write noise over the pages that are chosen by their number."""
    content = bytearray(path.read_bytes())
    for number in range(len(content) // 4096):
        if pages(number):
            content[4096 * number : 4096 * (number + 1)] = random.Random(number).randbytes(4096)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "pages",
    [lambda n: n % 2 == 1, lambda n: n == 0, lambda n: n in (1, 2, 3), lambda _: True],
    ids=["every second", "first", "tables", "all"],
)
def test_a_damaged_store_is_put_aside_with_one_line_and_a_new_one_begins(tmp_path, caplog, pages):
    filled(tmp_path, *map(a_record, range(10))).close()
    damaged(tmp_path / FILE, pages)
    store = filled(tmp_path, a_record(11))
    lines = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    assert lines == [f"The stored results are damaged and put aside as {FILE}.damaged."]
    assert kept(store, 11) == a_record(11).result
    assert (tmp_path / f"{FILE}.damaged").stat().st_size > 10 * 40_000
    store.close()


def test_a_store_that_is_damaged_while_it_is_used_is_put_aside(tmp_path, caplog):
    store = filled(tmp_path, *map(a_record, range(10)))
    store._database._empty_the_log()
    damaged(tmp_path / FILE, lambda n: n > 0)
    store._database._connection.execute("PRAGMA shrink_memory")
    for number in range(20, 25):
        asyncio.run(store.add(a_record(number)))
        assert kept(store, number) == a_record(number).result
    assert [kept(store, number) for number in range(10)] == [None] * 10
    assert asyncio.run(store.trouble()) == ""
    assert caplog.text.count("put aside") == 1
    store.close()


def test_a_result_of_which_a_byte_was_changed_is_never_told(tmp_path, caplog):
    filled(tmp_path, a_record(0, b"{right}" * 9000), a_record(1)).close()
    path = tmp_path / FILE
    content = path.read_bytes()
    path.write_bytes(content.replace(b"{right}", b"{wrong}", 1))
    store = filled(tmp_path)
    assert kept(store, 0) is None
    assert kept(store, 1) == a_record(1).result
    assert "damaged and is forgotten" in caplog.text
    store.close()


def test_a_store_of_a_newer_version_is_neither_used_nor_changed(tmp_path):
    filled(tmp_path, a_record(0)).close()
    with sqlite3.connect(tmp_path / FILE) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(InputError, match="newer version"):
        filled(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as newer:
        assert newer.execute("PRAGMA user_version").fetchone() == (99,)
        assert newer.execute("SELECT body FROM results").fetchone() == (a_record(0).result,)
    newer.close()


def test_a_store_of_the_first_version_is_brought_up_to_date(tmp_path):
    with sqlite3.connect(tmp_path / FILE) as old:
        old.execute(VERSION_1)
        old.execute("CREATE INDEX by_key ON jobs (key)")
        row = [f"{7:032x}", "k", "auto-brain", "{}", "m", "done", 200, "", "", b"old result", 1e9]
        old.execute(f"INSERT INTO jobs VALUES ({', '.join('?' * 11)})", row)
        row[0], row[5], row[9], row[10] = f"{8:032x}", "running", b"", None
        old.execute(f"INSERT INTO jobs VALUES ({', '.join('?' * 11)})", row)
        old.execute("PRAGMA user_version = 1")
    old.close()
    store = filled(tmp_path)
    assert kept(store, 7) == b"old result"
    unfinished = asyncio.run(store.get(f"{8:032x}"))
    assert (unfinished.slug, unfinished.status, unfinished.state) == ("interrupted", 503, "failed")
    store.close()


def test_a_database_of_something_else_is_put_aside(tmp_path):
    with sqlite3.connect(tmp_path / FILE) as foreign:
        foreign.execute("CREATE TABLE jobs (name TEXT)")
    foreign.close()
    filled(tmp_path, a_record(1)).close()
    assert (tmp_path / f"{FILE}.damaged").exists()


def something_in_the_way(path: Path, kind: str) -> None:
    match kind:
        case "file":
            path.write_text("mine")
        case "dangling link":
            path.symlink_to(path.parent / "nowhere")
        case "link to a file":
            (path.parent / "theirs").write_text("mine")
            path.symlink_to(path.parent / "theirs")
        case "link to a folder":
            (path.parent / "home").mkdir()
            (path.parent / "home" / "letter").write_text("mine")
            path.symlink_to(path.parent / "home")


@pytest.mark.parametrize("name", ["state", "state/scratch"])
@pytest.mark.parametrize("kind", ["file", "dangling link", "link to a file", "link to a folder"])
def test_what_stands_where_a_folder_is_due_is_told_and_left_alone(tmp_path, name, kind):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    something_in_the_way(path, kind)
    if (name, kind) == ("state", "link to a folder"):  # which systemd makes
        filled(path, a_record(1)).close()
    else:
        with pytest.raises(InputError, match=rf"folder {path.name} .* in its place"):
            filled(tmp_path / "state")
    texts = [each.read_text() for each in tmp_path.rglob("*") if each.name in ("theirs", "letter")]
    assert texts == ["mine"] * kind.startswith("link")


def test_a_folder_in_the_place_of_the_database_is_told(tmp_path):
    (tmp_path / FILE).mkdir()
    with pytest.raises(InputError, match=r"cannot be used: .*\.$"):
        filled(tmp_path)


def test_equal_results_are_stored_once_and_leave_with_the_last(tmp_path):
    body = b"the same result" * 10_000
    store = filled(tmp_path, *(a_record(number, body) for number in range(20)))
    store._database._empty_the_log()
    assert len(body) < (tmp_path / FILE).stat().st_size < 2 * len(body)
    for number in range(19):
        asyncio.run(store.remove(f"{number:032x}"))
    assert kept(store, 19) == body
    asyncio.run(store.remove(f"{19:032x}"))
    assert store._database.nbytes == 0
    store.close()


def test_the_limit_holds_whenever_something_is_added(tmp_path):
    store = Store(tmp_path, 150_000, 3600)
    for number in range(10):
        asyncio.run(store.add(a_record(number)))
        assert store._database.nbytes <= 150_000
        assert kept(store, number) is not None
    assert [number for number in range(10) if kept(store, number)] == [7, 8, 9]
    large = a_record(99, bytes(400_000))
    asyncio.run(store.add(large))
    assert kept(store, 99) == large.result  # its client must still get it
    store.close()


def test_what_is_deleted_is_in_no_file_any_more(tmp_path):
    secret = random.Random(5).randbytes(100_000)
    store = filled(tmp_path, a_record(1, secret), a_record(2))
    assert secret[:64] in on_disk(tmp_path)
    asyncio.run(store.remove(f"{1:032x}"))
    left = on_disk(tmp_path)
    assert not any(secret[start : start + 64] in left for start in range(0, 100_000, 500))
    assert kept(store, 2) == a_record(2).result
    store.close()


@pytest.mark.parametrize("jump_s", [-1e6, 1e6])
def test_a_clock_that_is_set_neither_forgets_nor_keeps_for_ever(tmp_path, monkeypatch, jump_s):
    now, passed = database_time()
    monkeypatch.setattr("time.time", lambda: now)
    monkeypatch.setattr("time.monotonic", lambda: passed[0])
    store = filled(tmp_path, a_record(1))
    monkeypatch.setattr("time.time", lambda: now + jump_s)
    asyncio.run(store.expire())
    assert kept(store, 1) is not None
    passed[0] += 3601
    asyncio.run(store.expire())
    assert kept(store, 1) is None
    store.close()


def database_time() -> tuple[float, list[float]]:
    return 1.7e9, [1000.0]


def test_what_ended_in_the_future_is_kept_no_longer_than_the_rest(tmp_path):
    filled(tmp_path, a_record(1), clock=lambda: 5e9).close()
    store = filled(tmp_path, clock=lambda: 1e9)
    assert kept(store, 1) is not None
    store._now = lambda: 1e9 + 3601
    asyncio.run(store.expire())
    assert kept(store, 1) is None
    store.close()


def test_a_server_whose_disk_is_full_says_so_and_still_answers(
    start_server, a_volume, tmp_path, monkeypatch
):
    def full(*_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    header, body = wire.encode_image(a_volume)
    address = wire.image_address(header, body)
    order = {"fixed": address, "moving": address, "options": {"steps": 5}}
    with start_server(Settings(state_dir=tmp_path / "state")) as server:
        server.put(f"/v1/images/{address}", data=body, headers={wire.IMAGE_HEADER: header})
        with monkeypatch.context() as patch:
            patch.setattr(Database, "put", full)
            job = f"/v1/registrations/{server.post('/v1/registrations', json=order).json()['id']}"
            with server.get(f"{job}/events", stream=True) as events:
                assert b'"done"' in events.content
            assert server.get(f"{job}/result").ok
            ready = server.get("/readyz")
            assert (ready.status_code, ready.json()["error"]) == (503, "no-storage")
            assert "disk is full" in ready.json()["message"]
            other = f"/v1/registrations/{server.post('/v1/registrations', json=order).json()['id']}"
            server.delete(job)
            assert server.get(job).status_code == 404
        assert server.get("/readyz").ok
        assert server.get(f"{other}/result").ok


def test_the_reserve_is_no_larger_than_the_disk_allows(a_small_disk):
    store = filled(a_small_disk / "state")
    size = (a_small_disk / "state" / database.RESERVE).stat().st_size
    assert 2**17 < size < 2**20
    store.close()
    assert not (a_small_disk / "state" / database.RESERVE).exists()
