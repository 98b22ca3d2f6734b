"""Which two series of a study a rule means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

from retreg_server.dicom.peers import Rule


@dataclass(frozen=True)
class SeriesFacts:
    """What a rule asks of a series. taken: date, time and number, later ones larger.

    side: R, L or B of an eye; empty for what has none.
    """

    uid: str
    modality: str
    description: str
    taken: tuple[str, str, int]
    side: str = ""


def facts_of(header: Any) -> dict[str, Any]:
    """The fields of SeriesFacts of a pydicom data set, as plain JSON values."""
    from retreg.dicom.new_object import side_of
    from retreg.dicom.source import Source

    def first(*names: str) -> str:
        return next((str(header.get(name)) for name in names if header.get(name)), "")

    return {
        "uid": first("SeriesInstanceUID"),
        "modality": first("Modality"),
        "description": first("SeriesDescription", "ProtocolName"),
        "taken": (
            first("AcquisitionDate", "SeriesDate", "ContentDate", "StudyDate"),
            first("AcquisitionTime", "SeriesTime", "ContentTime"),
            int(header.get("SeriesNumber") or 0),
        ),
        "side": side_of(Source((header,))),
    }


def pairs(rule: Rule, series: Sequence[SeriesFacts]) -> Iterator[tuple[str, str]]:
    """(fixed, moving) UIDs of the newest two series that fit, one pair for each side of the body.

    The moving one is the newest that fits, where one series fits both patterns.
    """
    fitting = [each for each in series if each.modality == rule.modality]
    fitting.sort(key=lambda each: each.taken, reverse=True)
    for side in sorted({each.side for each in fitting}):
        of_side = [each for each in fitting if each.side == side]
        moving = [each for each in of_side if _fits(each, rule.moving)]
        fixed = [each for each in of_side if _fits(each, rule.fixed)]
        different = ((f.uid, m.uid) for m, f in product(moving, fixed) if f.uid != m.uid)
        yield from list(different)[:1]


def _fits(series: SeriesFacts, pattern: str) -> bool:
    return fnmatchcase(series.description.strip().casefold(), pattern.casefold())
