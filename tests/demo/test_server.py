from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from retreg.errors import ServerError
from retreg_server.demo.server import own_server


def script(text: str) -> Sequence[str]:
    return (sys.executable, "-c", text)


READY = "print('RetReg server ready at http://127.0.0.1:9', flush=True);"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_address_is_read_from_the_ready_line_and_other_lines_are_skipped() -> None:
    with own_server(script(f"print('hello');{READY}import time;time.sleep(60)")) as address:
        assert address == "http://127.0.0.1:9"


def test_the_server_is_stopped_when_the_work_fails(tmp_path) -> None:
    pid_file = tmp_path / "pid"
    note = f"import os,time;open({str(pid_file)!r},'w').write(str(os.getpid()));"
    alive_inside = []

    def work() -> None:
        with own_server(script(f"{note}{READY}time.sleep(60)")):
            alive_inside.append(is_alive(int(pid_file.read_text())))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert alive_inside == [True]
    assert not is_alive(int(pid_file.read_text()))


def test_a_server_that_dies_is_reported_with_its_last_words() -> None:
    text = "import sys; sys.exit('retreg: The port is taken.')"
    expected = r"ended before.*The port is taken\."
    with pytest.raises(ServerError, match=expected), own_server(script(text)):
        pass


def test_a_server_that_never_becomes_ready_is_given_up_and_stopped() -> None:
    start = time.monotonic()
    silent = script("import time; time.sleep(60)")
    with pytest.raises(ServerError, match="not ready after"), own_server(silent, 0.5):
        pass
    assert time.monotonic() - start < 10


def test_a_talkative_server_never_waits_for_a_reader() -> None:
    text = f"{READY}print('x' * 1_000_000, flush=True);import sys;sys.stderr.write('done')"
    with own_server(script(text)):
        time.sleep(0.5)
    # Reaching this line means that stopping did not hang; a full pipe would have blocked the child.


def test_a_token_of_the_user_does_not_lock_the_demonstration_out(monkeypatch) -> None:
    monkeypatch.setenv("RETREG_TOKEN", "secret")
    text = "import os;print('RetReg server ready at', os.environ.get('RETREG_TOKEN'), flush=True)"
    with own_server(script(text)) as address:
        assert address == "None"


def test_the_real_server_starts_answers_and_ends() -> None:
    from retreg.client import Client

    with own_server() as address, Client(address) as client:
        assert client.health()
    with pytest.raises(ServerError), Client(address) as client:
        client.health()


def test_ctrl_c_leaves_no_server_behind() -> None:
    listening = (
        "import socket, time\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "port = server.getsockname()[1]\n"
        "print(f'RetReg server ready at http://127.0.0.1:{port}', flush=True)\n"
        "time.sleep(120)\n"
    )
    code = (
        "import sys, time\n"
        "from retreg_server.demo.server import own_server\n"
        f"with own_server((sys.executable, '-c', {listening!r})) as address:\n"
        "    print(address, flush=True)\n"
        "    time.sleep(120)\n"
    )
    process = subprocess.Popen(
        script(code), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    place = "127.0.0.1", int(process.stdout.readline().strip().rpartition(":")[2])
    socket.create_connection(place, 10).close()
    process.send_signal(2)
    process.wait(30)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(place, 10)

