"""What a link to two series of an archive says, checked before the page is sent."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from retreg.errors import InputError
from retreg_server.dicom.archives import NAME

EXAMPLE = "/look?study=1.2.3&fixed=1.2.3.4&moving=1.2.3.5"
_UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")
_STUDIES = ("study", "fixedStudy", "movingStudy")
_SERIES = ("fixed", "moving")
_WORDS = {"archive": "the name of an archive", "model": "the name of a model"}
_KNOWN = (*_STUDIES, *_SERIES, *_WORDS)
_MOST_SHOWN = 40


def refuse_unusable_link(parameters: Sequence[tuple[str, str]]) -> None:
    """Raise InputError, with one sentence, unless the parameters name two series.

    parameters: names and values as in the address. study may give way to fixedStudy and
    movingStudy; archive and model may be missing. No value is repeated in the sentence.
    """
    counts = Counter(name for name, _ in parameters)
    values = dict(parameters)
    wrong = (
        _unknown(counts)
        or next((f"it gives {name} {n} times" for name, n in counts.items() if n > 1), "")
        or _missing(values)
        or next((said for name, text in values.items() if (said := _unusable(name, text))), "")
    )
    if wrong:
        raise InputError(
            f"The link is not usable, since {wrong}; one such as {EXAMPLE} was expected, with the "
            "UIDs of a study and of its fixed and moving series."
        )


def _unknown(names: Counter[str]) -> str:
    odd = next((name for name in names if name not in _KNOWN), None)
    if odd is None:
        return ""
    return f"it has {odd[:_MOST_SHOWN]!a}, where only {', '.join(_KNOWN)} are known"


def _missing(values: dict[str, str]) -> str:
    for name in _SERIES:
        if not values.get(name):
            return f"it does not say which series is {name}"
    for name in ("fixedStudy", "movingStudy"):
        if not values.get(name) and not values.get("study"):
            return f"it gives neither study nor {name}"
    return ""


def _unusable(name: str, text: str) -> str:
    if name in _WORDS:
        return "" if NAME.fullmatch(text) else f"{name} is not {_WORDS[name]}"
    return "" if _UID.fullmatch(text) else f"{name} is no UID, which has digits and dots only"
