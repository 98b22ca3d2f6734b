"""Tokens with names: who may do what, who sees what, and what the log has of it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
import requests

from retreg import wire
from retreg.client import Client
from retreg.errors import InputError
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.cli import main
from retreg_server.serving.access.addresses import client_address, networks
from retreg_server.serving.access.failures import Failures
from retreg_server.serving.access.tokens import Tokens, read_tokens
from retreg_server.serving.settings import Settings

IMAGE = Image(np.ones((1, 4, 4, 4), np.int16), Grid((4, 4, 4), np.eye(4)))
HEADER, BODY = wire.encode_image(IMAGE)
ADDRESS = wire.image_address(HEADER, BODY)
RIGHTS = {
    "alice": 'rights = ["register"]',
    "bob": 'rights = ["register"]\njobs = 1',
    "carol": 'rights = ["register"]\ngroup = "lab"',
    "dave": 'rights = ["read"]\ngroup = "lab"',
    "root": 'rights = ["admin"]',
}


def secret(name: str, version: int = 1) -> str:
    return f"token-number-{version}-of-{name}"


def entry(name: str, *versions: int) -> str:
    digests = [hashlib.sha256(secret(name, each).encode()).hexdigest() for each in versions or (1,)]
    return f"[{name}]\nsha256 = {json.dumps(digests)}\n{RIGHTS[name]}\n"


def headers(name: str, version: int = 1) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret(name, version)}"}


@pytest.fixture(scope="module")
def tokens_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    path.write_text("".join(map(entry, RIGHTS)))
    return path


@pytest.fixture(scope="module")
def a_shared_server(start_server, tokens_file):
    settings = Settings(tokens_file=tokens_file, trusted_proxies=("127.0.0.1",), stop_grace_s=0.5)
    with start_server(settings) as server:
        yield server


def sends(server, name: str):
    more = {wire.IMAGE_HEADER: HEADER, **headers(name)}
    return server.put(f"/v1/images/{ADDRESS}", data=BODY, headers=more)


def orders(server, name: str, **options):
    order = {"fixed": ADDRESS, "moving": ADDRESS, "model": "auto-brain", "options": options}
    return server.post("/v1/registrations", json=order, headers=headers(name))


def registers(server, name: str, **options) -> str:
    assert sends(server, name).status_code == 201
    answer = orders(server, name, **options)
    assert answer.status_code == 202, answer.text
    job = f"/v1/registrations/{answer.json()['id']}"
    while server.get(job, headers=headers(name)).json()["state"] in ("queued", "running"):
        time.sleep(0.02)
    return job


def sees(server, name: str, path: str) -> int:
    return server.get(path, headers=headers(name)).status_code


def test_each_sees_what_is_its_own_and_admins_see_all(a_shared_server):
    job = registers(a_shared_server, "alice", shift=1.0)
    for path in (job, f"{job}/result", f"{job}/events", f"{job}/transform", f"{job}/warped"):
        assert [sees(a_shared_server, name, path) for name in ("alice", "bob", "dave", "root")] == [
            200, 404, 404, 200
        ]  # fmt: skip
    assert a_shared_server.delete(job, headers=headers("bob")).status_code == 404
    assert sees(a_shared_server, "alice", job) == 200


def test_a_group_shares_its_results(a_shared_server):
    job = registers(a_shared_server, "carol", shift=2.0)
    seen = [sees(a_shared_server, name, f"{job}/result") for name in ("dave", "alice")]
    assert seen == [200, 404]


def test_a_right_that_a_token_lacks_is_told(a_shared_server):
    job = registers(a_shared_server, "carol", shift=2.5)
    refused = [
        sends(a_shared_server, "dave"),
        orders(a_shared_server, "dave"),
        a_shared_server.delete(job, headers=headers("dave")),
        a_shared_server.post("/v1/register", files={"fixed": b"x"}, headers=headers("dave")),
        a_shared_server.put("/session/", files={"files": b"x"}, headers=headers("dave")),
        a_shared_server.post("/infer/auto-brain", files={"file": b"x"}, headers=headers("dave")),
    ]
    assert [answer.status_code for answer in refused] == [403] * 6
    assert {answer.json()["error"] for answer in refused} == {"forbidden"}


def test_an_image_is_there_for_those_who_sent_it_and_each_drops_its_own(a_shared_server):
    path = f"/v1/images/{ADDRESS}"

    def has(name: str) -> bool:
        return requests.head(a_shared_server.url + path, headers=headers(name), timeout=5).ok

    for name in ("alice", "bob", "carol"):
        a_shared_server.delete(path, headers=headers(name))
    assert not any(map(has, RIGHTS))
    assert orders(a_shared_server, "bob").json()["error"] == "unknown-image"
    sends(a_shared_server, "alice")
    assert [has(name) for name in ("alice", "bob", "root")] == [True, False, True]
    sends(a_shared_server, "bob")
    assert a_shared_server.delete(path, headers=headers("alice")).status_code == 204
    assert [has(name) for name in ("alice", "bob")] == [False, True]
    assert a_shared_server.delete(path, headers=headers("alice")).status_code == 404
    assert a_shared_server.delete(path, headers=headers("root")).status_code == 204
    assert not has("bob")


def test_an_answer_of_one_owner_is_not_reused_for_another(a_shared_server):
    registers(a_shared_server, "alice", shift=7.0)
    asked = len(a_shared_server.model.requests)
    registers(a_shared_server, "alice", shift=7.0)
    assert len(a_shared_server.model.requests) == asked
    registers(a_shared_server, "bob", shift=7.0)
    assert len(a_shared_server.model.requests) == asked + 1


def test_a_token_has_no_more_registrations_at_a_time_than_it_may(a_shared_server):
    sends(a_shared_server, "bob")
    sends(a_shared_server, "alice")
    first = orders(a_shared_server, "bob", steps=100)
    second = orders(a_shared_server, "bob", shift=3.0)
    assert (second.status_code, second.json()["error"]) == (429, "busy")
    assert int(second.headers["Retry-After"]) >= 1
    assert orders(a_shared_server, "alice", shift=3.5).status_code == 202
    a_shared_server.delete(f"/v1/registrations/{first.json()['id']}", headers=headers("bob"))


def test_the_log_says_who_did_what_where_and_to_what_by_hash(a_shared_server, caplog):
    who = {"X-Forwarded-For": "10.9.8.7", **headers("alice")}
    with caplog.at_level(logging.INFO):
        more = {wire.IMAGE_HEADER: HEADER, **who}
        a_shared_server.put(f"/v1/images/{ADDRESS}", data=BODY, headers=more)
        order = {"fixed": ADDRESS, "moving": ADDRESS, "options": {"shift": 1.0}}
        answer = a_shared_server.post("/v1/registrations", json=order, headers=who)
        job = answer.json()["id"]
        result = f"/v1/registrations/{job}/result"
        while a_shared_server.get(result, headers=who).status_code != 200:
            time.sleep(0.02)
        a_shared_server.delete(f"/v1/registrations/{job}", headers=who)
        a_shared_server.delete(f"/v1/images/{ADDRESS}", headers=who)
        time.sleep(0.1)
    acts = [each for each in caplog.records if hasattr(each, "act")]
    assert [each.act for each in acts] == ["sent", "ran", "fetched", "deleted", "deleted"]
    assert {(each.client, each.address) for each in acts} == {("alice", "10.9.8.7")}
    assert (acts[1].job, acts[1].fixed, acts[1].moving) == (job, ADDRESS, ADDRESS)
    assert acts[0].image == acts[4].image == ADDRESS
    lines = [each for each in caplog.records if hasattr(each, "route")]
    assert {(each.client, each.address) for each in lines} == {("alice", "10.9.8.7")}
    assert secret("alice") not in caplog.text


def test_tokens_change_without_a_restart_and_a_damaged_file_changes_nothing(tmp_path, caplog):
    path = tmp_path / "tokens.toml"
    path.write_text(entry("alice", 1))
    tokens = Tokens(None, path)

    def write(text: str) -> None:
        draft = tmp_path / "draft"
        draft.write_text(text)
        draft.replace(path)

    def valid(version: int) -> bool:
        return tokens.owner_of(secret("alice", version).encode()) is not None

    assert [valid(1), valid(2)] == [True, False]
    write(entry("alice", 2, 1))
    assert [valid(1), valid(2)] == [True, True]
    write(entry("alice", 2))
    assert [valid(1), valid(2)] == [False, True]
    for damaged in ("[alice", "", '[alice]\nrights = ["register"]\n'):
        write(damaged)
        assert [valid(1), valid(2)] == [False, True]
    assert caplog.text.count("stay as they were") == 3
    path.unlink()
    assert valid(2)


@pytest.mark.parametrize(
    "text",
    [
        "alice = 1",
        '[alice]\nsha256 = "short"\nrights = ["register"]',
        f'[alice]\nsha256 = "{"0" * 64}"\nrights = ["everything"]',
        f'[alice]\nsha256 = "{"0" * 64}"\nrights = []',
        f'["al ice"]\nsha256 = "{"0" * 64}"\nrights = ["read"]',
        f'[alice]\nsha256 = "{"0" * 64}"\nrights = ["read"]\njobs = 0',
        f'[alice]\nsha256 = "{"0" * 64}"\nrights = ["read"]\njobs = true',
        f'[alice]\nsha256 = "{"0" * 64}"\nrights = ["read"]\ntoken = "secret"',
        "",
        "[",
    ],
)
def test_a_file_of_tokens_that_cannot_be_used_is_refused_in_words(tmp_path, text):
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"tokens\.toml .*\.$"):
        read_tokens(path)


def test_a_new_token_is_shown_once_and_kept_as_a_hash(tmp_path, capsys):
    path = tmp_path / "tokens.toml"
    assert main(["token", "mri-1", "--file", str(path), "--jobs", "3", "--group", "lab"]) == 0
    first = capsys.readouterr().out.strip()
    assert first not in path.read_text()
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    found = Tokens(None, path).owner_of(first.encode())
    assert (found.name, found.jobs, found.owner) == ("mri-1", 3, "group lab")
    assert main(["token", "mri-1", "--file", str(path)]) == 0
    second = capsys.readouterr().out.strip()
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o644
    tokens = Tokens(None, path)
    assert tokens.owner_of(first.encode()) == tokens.owner_of(second.encode()) == found
    assert main(["token", "mri-1", "--file", str(path), "--replace", "--rights", "read"]) == 0
    third = capsys.readouterr().out.strip()
    tokens = Tokens(None, path)
    assert tokens.owner_of(first.encode()) is tokens.owner_of(second.encode()) is None
    assert tokens.owner_of(third.encode()).rights == {"read"}
    before = path.read_text()
    assert main(["token", "not a name", "--file", str(path)]) == 2
    assert path.read_text() == before
    assert [each.name for each in tmp_path.iterdir()] == ["tokens.toml"]


def test_tokens_of_a_file_let_a_server_listen_to_others(tokens_file):
    assert Settings(host="0.0.0.0", tokens_file=tokens_file).token is None
    with pytest.raises(InputError, match="--tokens-file"):
        Settings(host="0.0.0.0")


def test_who_guesses_is_slowed_and_who_knows_is_not(a_shared_server):
    wrong = {"Authorization": "Bearer wrong", "X-Forwarded-For": "10.0.0.66"}
    statuses = [a_shared_server.get("/v1/info", headers=wrong).status_code for _ in range(120)]
    assert statuses[:100] == [401] * 100
    assert statuses.count(429) >= 10
    neighbour = headers("alice") | {"X-Forwarded-For": "10.0.0.66"}
    assert a_shared_server.get("/v1/info", headers=neighbour).ok
    other = wrong | {"X-Forwarded-For": "10.0.0.67"}
    assert a_shared_server.get("/v1/info", headers=other).status_code == 401


def test_a_wrong_password_of_the_log_in_counts_too(a_shared_server):
    where = {"X-Forwarded-For": "10.0.0.99"}
    answers = [
        a_shared_server.post("/auth/token", data={"password": "wrong"}, headers=where)
        for _ in range(130)
    ]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) >= 10
    assert refused[0].json()["error"] == "too-many-failures"
    assert 1 <= int(refused[0].headers["Retry-After"]) <= 6


def test_failures_are_forgiven_with_time_and_need_no_more_memory_than_a_table():
    now = [0.0]
    failures = Failures(lambda: now[0])
    assert [failures.retry_after_s("a") > 0 for _ in range(102)] == [False] * 100 + [True] * 2
    now[0] += 1.5
    assert [failures.retry_after_s("a") > 0 for _ in range(3)] == [False, True, True]
    for number in range(20_000):
        failures.retry_after_s(str(number))
    assert len(failures._paid_until) == 10_000


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", [b"1.2.3.4"], "203.0.113.9"),  # no proxy of ours: made up
        ("127.0.0.1", [b"1.2.3.4"], "1.2.3.4"),
        ("127.0.0.1", [b"6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        ("127.0.0.1", [b"6.6.6.6", b"1.2.3.4, 10.1.1.1"], "1.2.3.4"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", [b"evil\nline"], "127.0.0.1"),
        ("127.0.0.1", [b"2001:db8::7"], "2001:db8::7"),
        ("", [b"1.2.3.4"], ""),
    ],
)
def test_forwarded_addresses_are_believed_of_known_proxies_only(peer, forwarded, expected):
    proxies = networks(("127.0.0.1", "10.0.0.0/8"))
    assert client_address(peer, forwarded, proxies) == expected


def test_a_named_token_works_with_the_client(a_shared_server):
    with Client(a_shared_server.url, secret("alice")) as client:
        assert client.register(IMAGE, IMAGE, shift=9.0).quality.verdict == "accept"
