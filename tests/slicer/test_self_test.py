"""What CTest runs inside Slicer, run on the real MRML library."""

from __future__ import annotations

import importlib.util
import unittest
from pathlib import Path
from typing import Any

SELF_TEST = Path(__file__).parents[2] / "SlicerRetReg/Testing/Python/RetRegTransformsTest.py"


def test_the_test_of_transforms_that_runs_inside_slicer_passes(scene: Any) -> None:
    spec = importlib.util.spec_from_file_location(SELF_TEST.stem, SELF_TEST)
    assert spec and spec.loader and scene is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    result = unittest.TestResult()
    suite.run(result)
    assert result.testsRun == 2
    assert result.wasSuccessful(), result.failures + result.errors
