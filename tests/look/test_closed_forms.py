"""The fits of the page and those of Python are held to one table of numbers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import retreg_server.serving

sys.path.insert(0, str(Path(__file__).parent))

from make_vectors import FILE, correction_answer, correction_cases, fit_answer, fit_cases

WEB = Path(retreg_server.serving.__file__).parent / "web"
TABLE = json.loads(FILE.read_text())
CLOSE = 1e-6


def test_python_gives_the_numbers_of_the_table():
    assert len(TABLE["fits"]) == len(fit_cases()) >= 30
    for case in TABLE["fits"]:
        np.testing.assert_allclose(fit_answer(case), case["expected"], atol=CLOSE)
    assert [case["name"] for case in TABLE["corrections"]] == [
        case["name"] for case in correction_cases()
    ]
    for case in TABLE["corrections"]:
        answer, expected = correction_answer(case), case["expected"]
        np.testing.assert_allclose(answer["places"], expected["places"], atol=CLOSE)
        np.testing.assert_allclose(answer["reach"], expected["reach"], atol=CLOSE)


@pytest.fixture(scope="module")
def differences() -> dict[str, float]:
    """How far the page is off, by the name of the case."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = Path(__file__).with_name("check_vectors.mjs")
    done = subprocess.run([node, script, WEB, FILE], capture_output=True, check=True, timeout=60)
    return json.loads(done.stdout)


@pytest.mark.parametrize("part", ["fits", "corrections"])
def test_the_page_gives_the_numbers_of_the_table(differences, part):
    names = [case["name"] for case in TABLE[part]]
    assert {name: differences[name] for name in names if not differences[name] < CLOSE} == {}
