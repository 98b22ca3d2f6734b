"""What CTest runs inside Slicer, run on the real MRML library."""

from __future__ import annotations

import importlib.util
import unittest
from pathlib import Path

import pytest

SELF_TEST = Path(__file__).parents[2] / "SlicerRetReg/Testing/Python/RetRegTransformsTest.py"


@pytest.mark.usefixtures("scene")
def test_the_test_of_transforms_that_runs_inside_slicer_passes() -> None:
    spec = importlib.util.spec_from_file_location(SELF_TEST.stem, SELF_TEST)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    result = unittest.TestResult()
    suite.run(result)
    assert result.testsRun == 2
    assert result.wasSuccessful(), result.failures + result.errors
