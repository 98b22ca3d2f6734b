"""Fixtures of the tests that need Slicer's data model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # for the modules that the tests here share

from bare_scene import bare_scene

SLICER_MODULE = Path(__file__).parents[2] / "SlicerRetReg"


@pytest.fixture(scope="session")
def slicer() -> Any:
    """The package slicer, with RetRegLib on the path as Slicer's loader puts it."""
    package = pytest.importorskip("slicer", reason="slicer-core is not installed")
    if str(SLICER_MODULE) not in sys.path:
        sys.path.append(str(SLICER_MODULE))
    return package


@pytest.fixture
def scene(slicer: Any) -> Iterator[Any]:
    """An empty scene; slicer.mrmlScene is it."""
    with bare_scene(slicer) as (scene, _):
        yield scene
