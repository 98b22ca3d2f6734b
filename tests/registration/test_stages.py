"""Stages of work: what is announced, and which share of all work is done when it is."""

from __future__ import annotations

import pytest

from retreg_server.registration.model import Stages


def heard_from(work) -> list[tuple[str, float]]:
    """(stage, fraction in percent) of everything that the work announces."""
    heard: list[tuple[str, float]] = []
    work(Stages(lambda name, fraction: heard.append((name, round(100 * fraction)))))
    return heard


def test_stages_follow_each_other_by_their_shares():
    def work(stages: Stages) -> None:
        with stages.stage("first", 0.2):
            stages.at(0.5)
        with stages.stage("second", 0.8):
            stages.at(0.5)
            stages.at(1.0)

    assert heard_from(work) == [
        ("first", 0), ("first", 10), ("second", 20), ("second", 60), ("second", 100),
    ]  # fmt: skip


def test_shares_inside_a_part_are_shares_of_that_part():
    def inner(stages: Stages) -> None:
        with stages.stage("left", 0.5):
            pass
        with stages.stage("right", 0.5):
            stages.at(0.5)

    def work(stages: Stages) -> None:
        with stages.part(0.6):
            inner(stages)
        with stages.stage("end", 0.4):
            pass

    assert heard_from(work) == [("left", 0), ("right", 30), ("right", 45), ("end", 60)]


def test_what_is_skipped_counts_as_done():
    def work(stages: Stages) -> None:
        stages.skip(0.4)
        with stages.part(0.6), stages.stage("rest", 1.0):
            stages.at(0.5)

    assert heard_from(work) == [("rest", 40), ("rest", 70)]


def test_progress_after_an_inner_stage_has_the_name_of_the_outer_one():
    def work(stages: Stages) -> None:
        with stages.stage("outer", 1.0):
            with stages.stage("inner", 0.5):
                pass
            stages.at(0.75)

    assert heard_from(work)[-1] == ("outer", 75)


def test_a_stage_that_fails_is_timed_and_closed():
    stages = Stages()
    with pytest.raises(ValueError, match="no"), stages.stage("failing", 0.5):
        raise ValueError("no")
    assert stages.seconds["failing"] >= 0
    assert heard_from(lambda other: other.at(0.25)) == [("", 25)]
