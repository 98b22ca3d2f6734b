"""Debian's Orthanc with its DICOMweb plugin, started on this machine."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from retreg_server.dicom.archives import Archive

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def is_installed() -> bool:
    """Whether this machine has it."""
    return shutil.which("Orthanc") is not None and PLUGIN.is_file()


@contextmanager
def running_orthanc(folder: Path) -> Iterator[Archive]:
    """An empty archive on a free port that keeps its files in folder, as settings would name it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    settings = {
        "StorageDirectory": str(folder), "IndexDirectory": str(folder), "Plugins": [str(PLUGIN)],
        "HttpPort": port, "DicomServerEnabled": False, "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True, "RegisteredUsers": {"retreg": "for-this-test"},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(["Orthanc", folder / "orthanc.json"], stdout=log, stderr=log)
        archive = Archive(
            "orthanc", f"http://127.0.0.1:{port}/dicom-web", "retreg", "for-this-test"
        )
        try:
            _wait(archive)
            yield archive
        finally:
            running.terminate()
            running.wait(20)


def _wait(archive: Archive) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            answer = requests.get(
                f"{archive.url}/studies", auth=(archive.user, archive.password), timeout=2
            )
            assert answer.ok
            return
        except requests.RequestException:
            assert time.monotonic() < end
            time.sleep(0.05)
