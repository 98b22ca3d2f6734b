"""Which series a rule means, and what the settings may say of senders, destinations and rules."""

from __future__ import annotations

import pytest

from retreg.errors import InputError
from retreg_server.dicom.peers import Rule, peers_from
from retreg_server.dicom.rules import SeriesFacts, pairs
from retreg_server.serving.settings import Settings


def series(uid, description, day=1, side="", modality="MR", number=1):
    return SeriesFacts(uid, modality, description, (f"202601{day:02}", "120000", number), side)


def rule(fixed="*", moving="*", modality="MR"):
    return Rule("any", "pacs", modality, fixed, moving)


def test_patterns_choose_whatever_the_size_of_letters():
    found = [series("1", "Ax T1 MPRAGE"), series("2", "AX FLAIR"), series("3", "localizer")]
    assert list(pairs(rule("*t1*", "*flair"), found)) == [("1", "2")]
    assert list(pairs(rule("*t1", "*flair"), found)) == []


def test_the_newest_of_several_series_counts():
    found = [series("1", "t1", 3), series("2", "t1", 5), series("3", "t2", 1), series("4", "t2", 2)]
    assert list(pairs(rule("t1", "t2"), found)) == [("2", "4")]


def test_series_of_one_time_are_told_apart_by_number():
    found = [series("1", "t1", number=9), series("2", "t1", number=10), series("3", "t2")]
    assert list(pairs(rule("t1", "t2"), found)) == [("2", "3")]


def test_of_series_that_fit_both_patterns_the_newest_moves():
    found = [series(str(day), "colour", day) for day in (2, 9, 5)]
    assert list(pairs(rule(), found)) == [("5", "9")]


def test_a_series_is_never_registered_to_itself():
    assert list(pairs(rule(), [series("1", "t1")])) == []
    found = [series("1", "t1", 1), series("2", "t1 post", 2)]
    assert list(pairs(rule("*post", "*"), found)) == [("2", "1")]


def test_each_side_has_a_pair_of_its_own():
    found = [series(f"{side}{day}", "oct", day, side) for side in "RL" for day in (1, 2, 3)]
    assert list(pairs(rule(), found)) == [("L2", "L3"), ("R2", "R3")]
    assert list(pairs(rule(), [series("1", "a", 1, "R"), series("2", "a", 2, "L")])) == []


def test_other_modalities_are_not_looked_at():
    found = [series("1", "t1"), series("2", "t2", modality="CT")]
    assert list(pairs(rule(), found)) == []


SENDER = {"camera": {"title": "CAMERA", "address": "10.0.0.0/8"}}
PACS = {"pacs": {"title": "PACS", "host": "pacs.example", "port": 104}}
BRAIN = {"brain": {"destination": "pacs", "modality": "MR"}}


def test_a_sender_with_an_address_calls_from_there_and_one_without_from_anywhere():
    peers = peers_from({**SENDER, "any": {"title": "ANY"}}, PACS, BRAIN)
    assert peers.senders["camera"].may_call_from("10.1.2.3")
    assert peers.senders["camera"].may_call_from("::ffff:10.1.2.3")
    assert not peers.senders["camera"].may_call_from("11.1.2.3")
    assert not peers.senders["camera"].may_call_from("::1")
    assert peers.senders["any"].may_call_from("::1")
    assert peers.rules["brain"].store == ("series", "registration")


@pytest.mark.parametrize(
    ("senders", "destinations", "rules", "said"),
    [
        ({"c": {}}, PACS, BRAIN, "sender c needs title"),
        ({"c": {"title": "x" * 17}}, PACS, BRAIN, "1 to 16 letters"),
        ({"c": {"title": " X"}}, PACS, BRAIN, "1 to 16 letters"),
        ({"c": {"title": "X", "address": "somewhere"}}, PACS, BRAIN, "10.1.2.0/24"),
        ({"c": {"title": "X", "host": "a"}}, PACS, BRAIN, "it has title, address"),
        ({"C!": {"title": "X"}}, PACS, BRAIN, "small letters"),
        ([], PACS, BRAIN, r"\[senders.NAME\]"),
        ({"c": "X"}, PACS, BRAIN, r"\[senders.NAME\]"),
        (SENDER, {"pacs": {"title": "X", "host": "a"}}, BRAIN, "needs port"),
        (SENDER, {"pacs": {"title": "X", "host": "a", "port": 70000}}, BRAIN, "65535"),
        (SENDER, {"pacs": {"title": "X", "host": "a", "port": True}}, BRAIN, "cannot have port"),
        (SENDER, {"pacs": {"title": "X", "host": "", "port": 1}}, BRAIN, "needs a host"),
        (SENDER, {}, BRAIN, r"add it as \[destinations.pacs\]"),
        (SENDER, PACS, {"r": {"destination": "pacs"}}, "rule r needs modality"),
        (SENDER, PACS, {"r": {**BRAIN["brain"], "store": ["all"]}}, "stores all"),
        (SENDER, PACS, {"r": {**BRAIN["brain"], "store": []}}, "stores nothing"),
        (SENDER, PACS, {"r": {**BRAIN["brain"], "options": {"a": [1]}}}, "texts, numbers"),
        (SENDER, PACS, {"r": {**BRAIN["brain"], "fixd": "*"}}, "cannot have fixd"),
    ],
)
def test_what_is_wrong_in_the_settings_is_told(senders, destinations, rules, said):
    with pytest.raises(InputError, match=said):
        peers_from(senders, destinations, rules)


@pytest.mark.parametrize("missing", ["senders", "destinations", "rules"])
def test_a_port_for_c_store_needs_all_three(missing):
    given = {"senders": SENDER, "destinations": PACS, "rules": BRAIN, missing: {}}
    if missing == "destinations":
        given["rules"] = {}
    with pytest.raises(InputError, match=r"need (senders|destinations|rules)"):
        Settings(dicom_port=0, peers=peers_from(*given.values()))
    assert Settings(dicom_port=0, peers=peers_from(SENDER, PACS, BRAIN)).dicom_port == 0


def test_our_own_title_is_looked_at():
    with pytest.raises(InputError, match="title 'RET\\\\\\\\REG' is not usable"):
        Settings(dicom_title="RET\\REG")
