"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def retreg_data() -> Path:
    """The folder with the real test images; tests that ask for it are skipped without one."""
    folder = os.environ.get("RETREG_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RETREG_DATA does not name a folder with the test images")
    return Path(folder)
