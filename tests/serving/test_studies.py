"""Studies that arrive object by object, and when they are complete."""

from __future__ import annotations

from retreg_server.serving import studies as module
from retreg_server.serving.studies import Studies
from retreg_server.serving.workers.messages import SharedBuffer


def arrived(study="S", series="A", instance="1", association="x", clock=""):
    taken = ["20260101", clock, 0]
    facts = {"uid": series, "modality": "MR", "description": "", "taken": taken, "side": ""}
    return {
        "study": study, "association": association, "sender": "CAMERA", "instance": instance,
        "facts": facts,
    }  # fmt: skip


def add(studies, now_s, **names):
    studies.add(arrived(**names), SharedBuffer.of(b"file"), now_s)


def test_a_study_settles_after_its_last_association():
    studies = Studies()
    add(studies, 0.0)
    add(studies, 1.0, instance="2", association="y")
    studies.ended("x", 2.0)
    assert studies.settled(100.0, 10.0) == []
    studies.ended("y", 95.0)
    assert studies.settled(100.0, 10.0) == []
    (study,) = studies.settled(105.0, 10.0)
    assert (study.count, str(study)) == (2, "Study 1 from CAMERA (1 series, 2 files)")
    assert studies.open == []


def test_one_study_does_not_wait_for_another():
    studies = Studies()
    add(studies, 0.0)
    studies.ended("x", 0.0)
    add(studies, 20.0, study="T", association="y")
    assert [each.number for each in studies.settled(20.0, 10.0)] == [1]
    assert [each.number for each in studies.open] == [2]


def test_a_study_that_never_settles_expires():
    studies = Studies()
    for second in range(100):
        add(studies, float(second), instance=str(second))
    assert studies.expired(99.0, 100.0) == []
    assert [each.count for each in studies.expired(100.0, 100.0)] == [100]
    assert studies.expired(1000.0, 100.0) == []


def test_associations_that_died_with_their_process_do_not_hold_a_study():
    studies = Studies()
    add(studies, 0.0)
    studies.all_ended()
    assert len(studies.settled(10.0, 10.0)) == 1


def test_a_series_was_taken_when_its_first_object_was():
    studies = Studies()
    for clock in ("120500", "120000", "121000"):
        add(studies, 0.0, instance=clock, clock=clock)
    (study,) = studies.open
    assert study.facts["A"].taken == ("20260101", "120000", 0)


def test_the_number_of_objects_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_OBJECTS", 3)
    studies = Studies()
    for number in range(3):
        assert studies.has_room
        add(studies, 0.0, study=str(number))
    assert not studies.has_room
