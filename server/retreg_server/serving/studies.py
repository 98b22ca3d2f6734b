"""Studies that arrive object by object: kept in memory until they are complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from retreg_server.dicom.rules import SeriesFacts
from retreg_server.serving.workers.messages import SharedBuffer

MOST_OBJECTS = 20_000  # in all studies: each takes some memory besides its bytes


@dataclass(eq=False)
class Study:
    """What has come of a study. begun_s, touched_s: on the monotonic clock.

    number: what the log calls it. senders: their titles. open: associations that may bring more.
    series: facts and files of each by UID; files by the UID of the object.
    """

    number: int
    begun_s: float
    touched_s: float = 0.0
    senders: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    facts: dict[str, SeriesFacts] = field(default_factory=dict)
    files: dict[str, dict[str, SharedBuffer]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many objects there are."""
        return sum(map(len, self.files.values()))

    def __str__(self) -> str:
        """Without anything of the patient."""
        senders = ", ".join(sorted(self.senders))
        return f"Study {self.number} from {senders} ({len(self.facts)} series, {self.count} files)"


class Studies:
    """All studies that are not complete yet."""

    def __init__(self) -> None:
        self._studies: dict[str, Study] = {}
        self._begun = 0

    @property
    def open(self) -> Sequence[Study]:
        """Those that are there."""
        return list(self._studies.values())

    @property
    def has_room(self) -> bool:
        """Whether one more object may be added."""
        return sum(study.count for study in self._studies.values()) < MOST_OBJECTS

    def add(self, head: Mapping[str, Any], content: SharedBuffer, now_s: float) -> None:
        """Add an object that a receiver has handed over; one that is there already is replaced."""
        study = self._studies.get(head["study"])
        if study is None:
            self._begun += 1
            study = self._studies[head["study"]] = Study(self._begun, now_s)
        facts = head["facts"]
        date, clock, number = facts["taken"]
        taken = (str(date), str(clock), int(number))
        study.touched_s = now_s
        study.senders.add(head["sender"])
        study.open.add(head["association"])
        new = SeriesFacts(**{**facts, "taken": taken})
        known = study.facts.get(new.uid, new)
        study.facts[new.uid] = min(known, new, key=lambda each: each.taken)
        study.files.setdefault(new.uid, {})[head["instance"]] = content

    def ended(self, association: str, now_s: float) -> None:
        """Nothing more comes by that association."""
        for study in self._studies.values():
            if association in study.open:
                study.open.remove(association)
                study.touched_s = now_s

    def all_ended(self) -> None:
        """Nothing more comes by any association that was there."""
        for study in self._studies.values():
            study.open.clear()

    def settled(self, now_s: float, settle_s: float) -> list[Study]:
        """Take out those that nothing was added to for so long, whose associations have ended."""
        return self._taken(
            lambda study: not study.open and now_s - study.touched_s >= settle_s
        )

    def expired(self, now_s: float, keep_s: float) -> list[Study]:
        """Take out those that have been here for longer than that."""
        return self._taken(lambda study: now_s - study.begun_s >= keep_s)

    def _taken(self, is_wanted: Any) -> list[Study]:
        uids = [uid for uid, study in self._studies.items() if is_wanted(study)]
        return [self._studies.pop(uid) for uid in uids]
