"""Slices that lie at the same place: the same one twice, or several images of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from retreg.errors import FileError
from retreg.files.dicom_header import MEANINGS


def one_per_place(
    groups: Sequence[Sequence[int]],
    headers: Callable[[int], Any],
    is_same: Callable[[int, int], bool],
) -> tuple[list[int], tuple[str, ...]]:
    """One slice of each place, and the notes on those that were stored repeatedly.

    groups: the numbers of the slices at each place. headers: what is known of a slice. is_same:
    whether two slices have the same voxels. Raises FileError, which says in what they differ,
    when the voxels differ.
    """
    repeated = [group for group in groups if len(group) > 1]
    for group in repeated:
        for other in group[1:]:
            if not is_same(group[0], other):
                raise FileError(
                    f"{len(group)} different slices lie at the same place, and "
                    f"{len(repeated)} of {len(groups)} places have more than one: they differ in "
                    f"{_differences(headers(group[0]), headers(other))}. One volume was expected, "
                    "so export a single one."
                )
    kept = [group[0] for group in groups]
    count = sum(len(group) - 1 for group in repeated)
    if not count:
        return kept, ()
    verb = "slice is" if count == 1 else "slices are"
    return kept, (f"{count} {verb} stored once more with equal voxels; each place counts once.",)


def _differences(one: Any, other: Any) -> str:
    """By what the headers of two slices tell them apart, the telling attributes first."""
    first, second = dict(_named(one)), dict(_named(other))
    names = [
        meaning
        for keyword, meaning in MEANINGS.items()
        if keyword in first and keyword in second and first[keyword] != second[keyword]
    ]
    if not names:
        return "their voxels, and their headers do not say why"
    words = list(dict.fromkeys(names))[:4]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _named(header: Any) -> list[tuple[str, str]]:
    """The keyword and value of each telling attribute, also of those in functional groups."""
    found = []
    for element in header:
        if element.VR == "SQ":
            for item in element.value[:1]:
                found += _named(item)
        elif element.keyword in MEANINGS:
            found.append((element.keyword, str(element.value)))
    return found
