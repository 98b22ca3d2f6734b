"""The OpenAPI document against the server, by schemathesis where that command is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = "not_a_server_error,response_schema_conformance,status_code_conformance"
FLAGS = ("--max-examples", "80", "--generation-deterministic", "--continue-on-failure")


def test_two_thousand_requests_made_from_the_document_cause_no_server_error(a_server, tmp_path):
    beside_python = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    command = beside_python or shutil.which("schemathesis")
    if command is None:
        pytest.skip("schemathesis is not installed")
    url = f"{a_server.url}/openapi.json"
    arguments = [command, "run", url, "--checks", CHECKS, *FLAGS]
    found = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert found.returncode == 0, found.stdout[-4000:]
    count = re.search(r"(\d+) generated", found.stdout)
    assert count is not None
    assert int(count[1]) >= 2000
    assert a_server.get("/healthz").ok
