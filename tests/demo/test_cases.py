from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Affine
from retreg_server.demo.cases import CASES, Outcome, mean_error
from retreg_server.demo.page import HEADINGS, row, write_case, write_page
from retreg_server.phantoms.pair import PhantomPair


def shifted(x: float, y: float, z: float) -> Affine:
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return Affine(matrix)


@pytest.fixture
def a_pair() -> PhantomPair:
    """A black picture whose truth is a shift by (3, 4, 0)."""
    image = Image(np.zeros((1, 1, 8, 8), np.uint8), Grid.of_picture(8, 8))
    return PhantomPair(image, image, shifted(3, 4, 0), np.array([[1.0, 2, 0], [5, 1, 0]]))


def outcome_with(pair: PhantomPair, transform: Affine, reason: str = "Fine.") -> Outcome:
    points = Keypoints(np.zeros((1, 3)), np.ones(1), np.ones(1, bool))
    quality = Quality({}, "accept", reason)
    result = RegistrationResult(transform, points, points, quality, {"options": {}})
    return Outcome(CASES[0], pair, result, 1.25)


def test_the_error_is_the_mean_distance_to_the_truth(a_pair) -> None:
    assert mean_error(a_pair, Affine.identity()) == pytest.approx(5.0)
    assert mean_error(a_pair, shifted(3, 4, 0)) == 0
    assert mean_error(a_pair, shifted(3, 4, 2)) == pytest.approx(2.0)


def test_a_result_is_right_within_the_limit_only(a_pair) -> None:
    assert outcome_with(a_pair, shifted(3, 5.9, 0)).is_right
    assert not outcome_with(a_pair, shifted(3, 6.1, 0)).is_right


def test_an_error_that_is_not_a_number_is_not_right(a_pair) -> None:
    broken = replace(a_pair, landmarks=np.full((2, 3), np.nan))
    assert not outcome_with(broken, shifted(3, 4, 0)).is_right


def test_the_row_states_errors_with_their_unit(a_pair) -> None:
    cells = dict(zip(HEADINGS, row(outcome_with(a_pair, shifted(3, 5, 0))), strict=True))
    assert cells["Error before"] == "5.0 px"
    assert cells["Error after"] == "1.00 px"
    assert cells["Verdict"] == "accept"
    wrong = dict(zip(HEADINGS, row(outcome_with(a_pair, shifted(9, 9, 0))), strict=True))
    assert wrong["Verdict"] == "wrong"


def test_the_page_shows_files_that_exist_and_escapes_what_it_is_told(a_pair, tmp_path) -> None:
    outcome = outcome_with(a_pair, shifted(3, 4, 0), reason="1 < 2 & <script>")
    write_case(tmp_path / outcome.case.name, outcome)
    text = write_page(tmp_path, [outcome]).read_text("utf-8")
    assert "1 &lt; 2 &amp; &lt;script&gt;" in text
    assert "<script>" not in text
    for source in ("fundus/overlay.png", "fundus/fixed.png", "fundus/moving.png"):
        assert source in text
        assert (tmp_path / source).stat().st_size > 0
    assert (tmp_path / "fundus" / "transform.h5").exists()
