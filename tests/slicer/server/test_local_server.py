"""The server on this machine: started, stopped, orphaned, installed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retreg import Client, Grid, Image
from retreg.errors import Cancelled, InputError, ServerError

SLICER_MODULE = Path(__file__).parents[3] / "SlicerRetReg"


@pytest.fixture(scope="module")
def started(slicer, tmp_path_factory) -> Iterator[Any]:
    """A local server that was started in the way of the button."""
    assert slicer
    from RetRegLib.server.local_server import LocalServer

    hostile = os.environ | {"RETREG_CONFIG": "nowhere.toml", "PYTHONPATH": "nowhere"}
    server = LocalServer(tmp_path_factory.mktemp("server"), environment=hostile)
    told: list[tuple[str, float]] = []
    server.start(lambda *what: told.append(what))
    server.told = told
    yield server
    server.stop()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until_gone(pid: int, limit_s: float = 10.0) -> float:
    begun = time.monotonic()
    while is_alive(pid):
        assert time.monotonic() - begun < limit_s, "the process lives on"
        time.sleep(0.02)
    return time.monotonic() - begun


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in tasks for child in path.read_text().split()]


def test_it_is_ready_on_a_loopback_port_with_a_token_of_its_own(started):
    connection = started.start()  # again: the same
    assert connection.is_local
    assert len(connection.token) >= 32
    with connection.client() as client:
        assert client.models()
    with Client(connection.url) as client, pytest.raises(ServerError, match="token"):
        client.models()
    assert started.told[0][0] == "starting the server"


def test_the_token_is_neither_in_the_arguments_nor_in_the_log(started):
    token = started.start().token
    pid = started._process._process.pid
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"serve" in arguments
    assert token.encode() not in arguments
    assert token not in (started.folder / "server.log").read_text()


def test_stop_leaves_no_process_and_is_quick(started):
    connection = started.start()
    pid = started._process._process.pid
    family = [pid, *children(pid)]
    assert len(family) > 1
    begun = time.monotonic()
    started.stop()
    assert time.monotonic() - begun < 5
    for each in family:
        wait_until_gone(each)
    assert not started.is_running
    started.stop()  # twice is fine
    with connection.client() as client, pytest.raises(ServerError):
        client.health()


def test_each_start_has_another_token(slicer, tmp_path):
    assert slicer
    from RetRegLib.server.local_server import LocalServer

    server = LocalServer(tmp_path, fake_python(tmp_path, ""))
    tokens = set()
    for _ in range(2):
        tokens.add(server.start().token)
        server.stop()
    assert len(tokens) == 2


def test_a_server_that_was_killed_is_reported_with_its_last_words(slicer, tmp_path):
    assert slicer
    from RetRegLib.server.connection import Connection
    from RetRegLib.server.local_server import LocalServer

    said = "import sys; print('the last words', file=sys.stderr)"
    server = LocalServer(tmp_path, fake_python(tmp_path, said))
    connection = server.start()
    server.check(connection)
    os.kill(server._process._process.pid, signal.SIGKILL)
    server._process._process.wait()
    server.check(Connection("http://127.0.0.1:1"))  # another one
    with pytest.raises(ServerError, match=r"ended unexpectedly.*the last words"):
        server.check(connection)
    assert not server.is_running


def test_a_registration_with_a_server_that_died_tells_its_last_words(scene, tmp_path):
    from RetRegLib.logic import Registration
    from RetRegLib.scene.volumes import volume_from_image
    from RetRegLib.server.local_server import LocalServer

    said = "import sys; print('out of paper', file=sys.stderr)"
    logic = Registration()
    logic.local_server = LocalServer(tmp_path, fake_python(tmp_path, said))
    logic.start_local_server()
    os.kill(logic.local_server._process._process.pid, signal.SIGKILL)
    image = Image(np.zeros((1, 4, 4, 4), np.uint8), Grid((4, 4, 4), np.eye(4)))
    nodes = [volume_from_image(image, name, scene) for name in ("fixed", "moving")]
    with pytest.raises(ServerError, match="out of paper"):
        logic.register(*nodes)


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(slicer, tmp_path):
    assert slicer
    from RetRegLib.server.install import install
    from RetRegLib.server.local_server import LocalServer

    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ServerError, match="cannot be made"):
        LocalServer(tmp_path / "file" / "server", fake_python(tmp_path, "")).start()
    with pytest.raises(ServerError, match="cannot be made"):
        install(plan_with(tmp_path / "file" / "packages"), os.environ, None)


def test_when_slicer_is_killed_the_server_ends_by_itself(slicer, tmp_path):
    assert slicer
    code = (
        "import sys, time; sys.path.append(sys.argv[1])\n"
        "from pathlib import Path\n"
        "from RetRegLib.server.local_server import LocalServer\n"
        "server = LocalServer(Path(sys.argv[2])); server.start()\n"
        "print(server._process._process.pid, flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(SLICER_MODULE), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as application:
        assert application.stdout is not None
        pid = int(application.stdout.readline())
        family = [pid, *children(pid)]
        assert len(family) > 1
        application.kill()
    for each in family:
        wait_until_gone(each)


def test_when_slicer_ends_in_order_the_server_ends_with_it(slicer, tmp_path):
    assert slicer
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "from pathlib import Path\n"
        "from RetRegLib.server.local_server import LocalServer\n"
        "server = LocalServer(Path(sys.argv[2]), sys.argv[3]); server.start()\n"
        "print(server._process._process.pid, flush=True)\n"
    )
    python = fake_python(tmp_path, "")
    command = [sys.executable, "-c", code, str(SLICER_MODULE), str(tmp_path), python]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    assert not is_alive(int(ended.stdout))


def fake_python(folder: Path, first: str, ready: bool = True) -> str:
    """A program that passes for a Python with the server; it answers /v1/info to anybody."""
    script = folder / "python.py"
    script.write_text(
        f"import sys\nif 'find_spec' in sys.argv[2]: sys.exit(0)\n{first}\n"
        "from http.server import BaseHTTPRequestHandler, HTTPServer\n"
        "class Handler(BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(b'{\"a\": 1}')\n"
        "    def log_message(self, *_): pass\n"
        "server = HTTPServer(('127.0.0.1', 0), Handler)\n"
        f"line = 'RetReg server ready at http://127.0.0.1:%d' if {ready} else 'no %d'\n"
        "print(line % server.server_address[1], flush=True)\n"
        "server.serve_forever()\n"
    )
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    program.chmod(0o755)
    return str(program)


def test_a_server_that_fails_at_start_is_told_with_its_last_words(slicer, tmp_path):
    assert slicer
    from RetRegLib.server.local_server import LocalServer

    python = fake_python(tmp_path, "sys.exit('retreg: The device is on fire.')")
    with pytest.raises(ServerError, match=r"ended before.*The device is on fire\."):
        LocalServer(tmp_path, python).start()


def test_a_start_that_is_cancelled_leaves_no_process(slicer, tmp_path):
    assert slicer
    from RetRegLib.server.local_server import LocalServer

    note = f"import os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))"
    server = LocalServer(tmp_path, fake_python(tmp_path, note, ready=False))

    def tell(_stage: str, _fraction: float) -> None:
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise Cancelled("Enough.")

    with pytest.raises(Cancelled):
        server.start(tell)
    wait_until_gone(int((tmp_path / "pid").read_text()))
    assert not server.is_running


@pytest.mark.parametrize("python", [sys.executable + "-that-is-not-there", "/bin/false"])
def test_where_it_is_not_installed_it_says_so(slicer, tmp_path, python):
    assert slicer
    from RetRegLib.server.local_server import LocalServer

    server = LocalServer(tmp_path, python)
    assert not server.is_installed()
    with pytest.raises(InputError, match="not installed"):
        server.start()


def installed_by(plan: Any) -> list[str]:
    """What the commands of a plan ask pip for: neither options nor what belongs to options."""
    asked = []
    for command in plan.commands:
        words = iter(command[command.index("install") + 1 :])
        for word in words:
            if word in ("--target", "-c", "-r"):
                next(words)
            elif not word.startswith("-"):
                asked.append(word)
    return asked


def a_shipped_server(folder: Path) -> Path:
    folder.mkdir()
    (folder / "requirements.txt").write_text("numpy==2.0.0 --hash=sha256:0\n")
    (folder / "retreg-9.9-py3-none-any.whl").write_bytes(b"a wheel")
    return folder


@pytest.mark.parametrize("has_wheel", [False, True])
def test_nothing_is_installed_by_its_name_alone(slicer, tmp_path, has_wheel):
    assert slicer
    from RetRegLib.server.install import plan_of

    shipped = a_shipped_server(tmp_path / "Server") if has_wheel else tmp_path / "none"
    plan = plan_of(tmp_path / "packages", "PythonSlicer", shipped)
    [asked] = installed_by(plan)
    assert Path(asked).is_absolute()
    assert Path(asked).exists(), "a name, for which pip would ask an index"


def test_the_server_that_came_with_the_module_is_installed_with_hashed_dependencies(
    slicer, tmp_path
):
    assert slicer
    from RetRegLib.server.install import plan_of

    shipped = a_shipped_server(tmp_path / "Server")
    others, own = plan_of(tmp_path / "packages", "PythonSlicer", shipped).commands
    assert "--require-hashes" in others
    assert others[others.index("-r") + 1] == str(shipped / "requirements.txt")
    assert {"--no-index", "--no-deps"} < set(own)


def test_a_module_without_a_server_says_so(slicer, tmp_path):
    assert slicer
    from RetRegLib.server.install import plan_of

    with pytest.raises(InputError, match="came without the server"):
        plan_of(tmp_path / "packages", "PythonSlicer", tmp_path / "none", tmp_path)


def test_every_dependency_is_shipped_with_its_pinned_version_and_hashes():
    requirements = (SLICER_MODULE / "Resources" / "Server" / "requirements.txt").read_text()
    entries = re.split(r"\n(?=\S)", requirements.replace("\\\n", " "))
    hashed = {}
    for entry in entries:
        assert "--hash=sha256:" in entry, entry
        name, version = re.match(r"([\w.-]+)==([\w.!+-]+)", entry).groups()
        hashed[plain(name)] = version
    root = SLICER_MODULE.parent
    pinned = dict(
        line.split("==") for line in (root / "constraints.txt").read_text().split() if "==" in line
    )
    pinned = {plain(name): version for name, version in pinned.items()}
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for dependency in project["dependencies"]:
        name = plain(re.match(r"[\w.-]+", dependency)[0])
        assert hashed.get(name) == pinned[name], f"{name}: run make lock"
    assert "retreg" not in hashed


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_plan_says_what_is_installed_where_and_how_large_it_is(slicer, tmp_path):
    assert slicer
    from RetRegLib.server.local_server import LocalServer

    plan = LocalServer(tmp_path / "server", "PythonSlicer").plan()
    [command] = plan.commands
    assert command[:3] == ("PythonSlicer", "-m", "pip")
    assert command[command.index("--target") + 1] == str(plan.folder)
    assert plan.folder.is_relative_to(tmp_path / "server")
    for words in (str(plan.folder), " ".join(command), "GB", "PyTorch", "deleting the folder"):
        assert words in plan.text
    assert not (tmp_path / "server").exists()  # a plan does nothing


@pytest.fixture
def a_wheel(tmp_path) -> Path:
    """A package that passes for the server's."""
    wheel = tmp_path / "retreg-9.9-py3-none-any.whl"
    contents = {
        "retreg_server/__init__.py": "",
        "retreg/__init__.py": "",
        "retreg/cli.py": (
            "def main(arguments):\n    print('RetReg server ready at', *arguments, flush=True)\n"
        ),
        "retreg-9.9.dist-info/METADATA": "Metadata-Version: 2.1\nName: retreg\nVersion: 9.9\n",
        "retreg-9.9.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in contents.items():
            archive.writestr(name, text)
        record = "".join(f"{name},,\n" for name in [*contents, "retreg-9.9.dist-info/RECORD"])
        archive.writestr("retreg-9.9.dist-info/RECORD", record)
    return wheel


def plan_with(folder: Path, *what: str) -> Any:
    from RetRegLib.server.install import InstallPlan

    pip = (sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target")
    return InstallPlan(folder, ((*pip, str(folder), *what),), "small")


def test_what_is_installed_is_found_before_anything_of_the_interpreter(slicer, tmp_path, a_wheel):
    assert slicer
    from RetRegLib.server.install import install
    from RetRegLib.server.local_server import RUN, LocalServer

    folder = tmp_path / "server" / "packages"
    told = []
    install(plan_with(folder, str(a_wheel)), os.environ, lambda *what: told.append(what))
    assert any("Installing" in stage or "installed" in stage for stage, _ in told)
    assert LocalServer(tmp_path / "server").is_installed()
    command = [sys.executable, "-c", RUN, str(folder), "serve", "now"]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert run.stdout == "RetReg server ready at serve now\n"  # the wheel, not this project


def test_an_installation_that_fails_is_told_in_a_sentence_and_leaves_nothing(slicer, tmp_path):
    assert slicer
    from RetRegLib.server.install import install

    folder = tmp_path / "packages"
    with pytest.raises(ServerError, match=r"could not be installed.*ERROR"):
        install(plan_with(folder, "no-such-package-of-retreg"), os.environ, None)
    assert not folder.exists()


def test_an_installation_that_is_cancelled_ends_at_once_and_leaves_nothing(slicer, tmp_path):
    assert slicer
    from RetRegLib.server.install import InstallPlan, install

    folder = tmp_path / "packages"
    code = "import time; print('Downloading', flush=True); time.sleep(60)"
    plan = InstallPlan(folder, ((sys.executable, "-c", code),), "small")

    def tell(stage: str, _fraction: float) -> None:
        if stage == "Downloading":
            raise Cancelled("Enough.")

    begun = time.monotonic()
    with pytest.raises(Cancelled):
        install(plan, os.environ, tell)
    assert time.monotonic() - begun < 10
    assert not folder.exists()
