"""The verbs serve, models and doctor, as their own processes where that matters."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import requests

from retreg import wire
from retreg.client import Client
from retreg.errors import InputError, RegistrationError, ServerError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import ModelInfo, Option
from retreg_server.cli import main
from retreg_server.commands import doctor
from retreg_server.commands.models import table
from retreg_server.commands.serve import listening_socket
from retreg_server.serving.setting_sources import token


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_its_address_when_ready_and_stops_in_order(stop):
    command = [sys.executable, "-m", "retreg.cli", "serve", "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "RETREG_TOKEN"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        line = process.stdout.readline()
        found = re.fullmatch(r"RetReg server ready at (http://127\.0\.0\.1:\d+)\n", line)
        if not found:
            process.kill()
            pytest.fail(line + process.stderr.read())
        with Client(found[1]) as client:
            assert client.health() == {"status": "ok"}
            assert "auto-brain" in [model.name for model in client.models()]
        begun = time.monotonic()
        process.send_signal(stop)
        assert process.wait(30) == 0
        assert time.monotonic() - begun < 20
        assert "Traceback" not in process.stderr.read()


def test_serve_on_all_addresses_refuses_to_start_without_a_token(capsys, monkeypatch):
    monkeypatch.delenv("RETREG_TOKEN", raising=False)
    assert main(["serve", "--host", "0.0.0.0", "--port", "0"]) == 2
    assert "token" in capsys.readouterr().err


def test_serve_on_a_taken_port_says_so(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--port", port]) == 2
    assert "taken" in capsys.readouterr().err


def test_the_socket_names_its_protocol_so_that_small_answers_are_sent_at_once():
    with listening_socket("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # asyncio sets TCP_NODELAY for no other


def test_the_token_comes_from_the_file_or_else_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("RETREG_TOKEN", "from-the-environment")
    file = tmp_path / "token"
    file.write_text("from-the-file\nand nothing else\n")
    assert token(file) == "from-the-file"
    assert token(None) == "from-the-environment"
    monkeypatch.setenv("RETREG_TOKEN", "")
    assert token(None) is None
    with pytest.raises(InputError, match="cannot be read"):
        token(tmp_path / "missing")


def test_an_empty_token_file_does_not_open_the_server(tmp_path, capsys):
    file = tmp_path / "token"
    file.write_text("")
    assert main(["serve", "--host", "0.0.0.0", "--port", "0", "--token-file", str(file)]) == 2
    assert "16 characters" in capsys.readouterr().err


def test_the_table_of_models_names_each_option_below_its_model():
    options = (
        Option("transform", "Family", "affine", choices=("affine", "tps")),
        Option("smoothing", "Smoothing", 0.1, minimum=0.0),
        Option("fast", "Quick look", False),
    )
    models = (
        ModelInfo("one", "First", ("picture",), ("affine", "tps"), options),
        ModelInfo("two", "Second", ("volume", "picture"), ("rigid",)),
    )
    lines = table(models).splitlines()
    first_words = [line.split()[0] for line in lines]
    assert first_words == ["NAME", "one", "transform", "smoothing", "fast", "two"]
    assert "affine | tps" in lines[2]
    assert "true | false" in lines[4]
    assert "volume, picture" in lines[5]
    assert "doctor" in table(())


def last_step(url: str) -> tuple[str, bool]:
    found = list(doctor.server_findings(url, None))[-1]
    return found.subject, found.ok


@pytest.mark.parametrize(
    ("url", "step"),
    [
        ("nonsense", "address"),
        ("http://127.0.0.1:99999", "address"),
        ("http://no-such-host.invalid", "resolve"),
        ("http://127.0.0.1:9", "connect"),
    ],
)
def test_doctor_names_the_step_that_fails(url, step):
    assert last_step(url) == (f"server: {step}", False)


def test_doctor_tells_a_server_without_tls_from_one_with():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = doctor.server_findings(f"https://127.0.0.1:{listener.getsockname()[1]}", None)
        assert [next(found).ok for _ in range(3)] == [True, True, True]
    last = list(found)[-1]
    assert (last.subject, last.ok) == ("server: TLS", False)


def test_doctor_looks_for_what_the_package_needs_and_for_no_extra(monkeypatch):
    needed = ["torch>=2.10", "python-multipart (>=0.0.18)", 'ray[serve]>=2.50; extra == "ray"']
    monkeypatch.setattr(doctor, "requires", lambda _: needed)
    assert list(doctor.packages()) == ["retreg", "torch", "python-multipart"]


def test_doctor_reports_the_installation(capsys):
    status = doctor.run(argparse.Namespace(server=None, token_file=None, ca_file=None))
    text = capsys.readouterr().out
    assert re.search(r"torch +\d", text)
    assert "CUDA" in text
    assert "free memory" in text
    assert status == int("FAIL" in text)


@contextmanager
def serving(*flags: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`retreg serve` in its own process, and its address."""
    command = [sys.executable, "-m", "retreg.cli", "serve", *flags]
    inherited = {key: value for key, value in os.environ.items() if key != "RETREG_TOKEN"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=inherited | environment, **pipes) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("RetReg server ready at "), process.stderr.read()
            yield process, line.split()[-1]
        finally:
            process.kill()


def children(process: subprocess.Popen[str]) -> list[int]:
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(pid) for path in tasks for pid in path.read_text().split()]


def a_picture(seed: int) -> Image:
    array = np.random.default_rng(seed).integers(0, 255, (3, 1, 200, 200)).astype(np.uint8)
    return Image(array, Grid.of_picture(200, 200))


def test_a_killed_server_keeps_its_results_and_leaves_neither_images_nor_processes(tmp_path):
    flags = ("--port", "0", "--state-dir", str(tmp_path / "state"))
    scratch = str(tmp_path / "tmp")
    Path(scratch).mkdir()
    picture = a_picture(0)
    with serving(*flags, TMPDIR=scratch) as (process, url):
        # Noise may or may not be registered.
        with Client(url) as client, suppress(RegistrationError):
            client.register(picture, picture, model="fundus-sift")
        path = done_job(tmp_path / "state")
        begin_upload(url, a_picture(1))
        family = children(process)
        assert family
        process.kill()
        process.wait()
        until = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in family) and time.monotonic() < until:
            time.sleep(0.05)
        assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]
    assert not list(Path(scratch).iterdir())
    with serving(*flags, TMPDIR=scratch) as (process, url):
        status = requests.get(f"{url}/v1/registrations/{path}", timeout=10).json()
        assert status["state"] in ("done", "failed")
        assert status.get("error", {}).get("error") != "interrupted"
        assert not list((tmp_path / "state" / "scratch").iterdir())


def done_job(state: Path) -> str:
    """The id of the only registration in a copy of the locked database."""
    copy = state.parent / "copy"
    shutil.copytree(state, copy)
    with sqlite3.connect(copy / "registrations.sqlite") as database:
        [(found, result)] = database.execute("SELECT id, state FROM jobs").fetchall()
    assert result in ("done", "failed")
    return found


def begin_upload(url: str, image: Image) -> None:
    """Send a part of an image and keep the connection."""
    header, body = wire.encode_image(image)
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    lines = [f"PUT /v1/images/{'0' * 64} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    lines += [f"{wire.IMAGE_HEADER}: {header}", "", ""]
    connection.sendall("\r\n".join(lines).encode() + body[:50_000])


def test_https_by_two_options(tmp_path):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    state = ("--state-dir", str(tmp_path / "state"))
    with serving("--port", "0", "--tls-cert", str(cert), "--tls-key", str(key), *state) as (_, url):
        assert main(["alive", *state]) == 0
        assert url.startswith("https://")
        assert requests.get(f"{url}/healthz", verify=str(cert), timeout=10).ok
        with Client(url) as client, pytest.raises(ServerError, match="certificate"):
            client.health()
        with Client(url, ca_file=cert) as client:
            assert client.health() == {"status": "ok"}
        assert all(finding.ok for finding in doctor.server_findings(url, None, cert))
        assert not list(doctor.server_findings(url, None))[-1].ok
        assert main(["models", "--server", url, "--ca-file", str(cert)]) == 0
