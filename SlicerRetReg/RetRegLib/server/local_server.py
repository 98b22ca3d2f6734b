"""The server on this machine: installed in a folder of its own, run as a process of its own.

Nothing is installed into Slicer's Python; deleting the folder undoes everything.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from retreg.errors import InputError, ServerError
from retreg.progress import Progress
from retreg.server_process import SERVE, ServerProcess
from RetRegLib.server.connection import Connection
from RetRegLib.server.install import InstallPlan, default_folder, install, make_folder, plan_of

STOP_TIMEOUT_S = 3.0
PACKAGES_FIRST = "import sys; sys.path.insert(0, sys.argv.pop(1)); "
RUN = PACKAGES_FIRST + "from retreg.cli import main; sys.exit(main(sys.argv[1:]))"
PROBE = PACKAGES_FIRST + (
    "from importlib.util import find_spec; sys.exit(find_spec('retreg_server') is None)"
)


class LocalServer:
    """Installs, starts and stops it. Every method may be called on another thread.

    folder: for its packages and its log. python: what runs it; by default Slicer's interpreter,
    in a process of its own and with packages of its own. environment: of its process.
    """

    def __init__(
        self,
        folder: Path | None = None,
        python: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder or default_folder()
        self.python = python or shutil.which("PythonSlicer") or sys.executable
        self._environment = dict(os.environ if environment is None else environment)
        self._process: ServerProcess | None = None
        self._connection: Connection | None = None

    def is_installed(self) -> bool:
        """Whether the interpreter finds the server's package."""
        command = [self.python, "-c", PROBE, str(self._packages)]
        try:
            found = subprocess.run(command, env=self._clean(), capture_output=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return found.returncode == 0

    def plan(self) -> InstallPlan:
        """What install will do, for the user to agree to."""
        return plan_of(self._packages, self.python)

    def install(self, tell: Progress | None = None) -> None:
        """Install the server into its folder; takes minutes.

        tell(stage, fraction): what it raises stops the installation and removes what was
        installed. Raises ServerError with the last words of pip when it fails.
        """
        install(self.plan(), self._clean(), tell)

    def start(self, tell: Progress | None = None) -> Connection:
        """Start the server on a free port with a token of its own, and wait until it is ready.

        Returns at once when it runs. tell: as for install. Raises InputError when the server is
        not installed, ServerError when it does not start.
        """
        if self.is_running and self._connection is not None:
            return self._connection
        if not self.is_installed():
            raise InputError("The server is not installed on this machine; install it first.")
        make_folder(self.folder)
        token = secrets.token_urlsafe(32)
        command = [self.python, "-c", RUN, str(self._packages), *SERVE, "--stop-grace-s", "1"]
        environment = self._clean() | {"RETREG_TOKEN": token}
        process = ServerProcess(command, environment, self.folder / "server.log")
        try:
            connection = Connection(process.wait_until_ready(tell=tell), token)
            with connection.client() as client:
                client.info()
        except BaseException:
            process.stop(STOP_TIMEOUT_S)
            raise
        self._process, self._connection = process, connection
        atexit.register(self.stop)
        return connection

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.is_alive

    def stop(self) -> None:
        """Stop the server, if it runs; takes a second or so, at most a few."""
        atexit.unregister(self.stop)
        process, self._process, self._connection = self._process, None, None
        if process is not None:
            process.stop(STOP_TIMEOUT_S)

    def check(self, connection: Connection) -> None:
        """Raise ServerError when that is the connection to this server and it has died."""
        if self._process is None or connection != self._connection or self._process.is_alive:
            return
        raise ServerError(
            "The local server ended unexpectedly; start it again. Its last words: "
            f"{self._process.last_words()}"
        )

    @property
    def _packages(self) -> Path:
        return self.folder / "packages"

    def _clean(self) -> dict[str, str]:
        """The environment without what is meant for another Python or another server."""
        ours = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP")
        kept = {
            name: value
            for name, value in self._environment.items()
            if name not in ours and not name.startswith("RETREG_")
        }
        return kept | {"PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}
