"""Which images belong together: by a table, or by the names of the files in a folder."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retreg.errors import FileError, OptionError
from retreg.initial import WORDS

DEFAULT_RULES = (("*/fixed.*", "*/moving.*"), ("*_fixed.*", "*_moving.*"), ("fixed/*", "moving/*"))
_ROLES, _MASKS = ("fixed", "moving"), ("fixed_mask", "moving_mask")
_UNSAFE = re.compile(r"[^\w.-]+")
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Pair:
    """Two images to be registered. name: of the folder of their result, without a slash.

    fixed_mask, moving_mask: images that are 0 where nothing counts. initial: the map near which the
    result is looked for (retreg.initial), a file or one of its words. None where there is none.
    """

    name: str
    fixed: Path
    moving: Path
    fixed_mask: Path | None = None
    moving_mask: Path | None = None
    initial: Path | str | None = None

    @property
    def masks(self) -> dict[str, Path]:
        """The masks that there are, by the role of their image."""
        given = {"fixed": self.fixed_mask, "moving": self.moving_mask}
        return {role: path for role, path in given.items() if path}


def pairs_in_table(table: Path) -> list[Pair]:
    """The pairs in a table (.csv, .tsv) with the columns fixed, moving and, if wanted, name,
    fixed_mask, moving_mask and initial, which may be empty.

    Paths count from the folder of the table. Raises FileError.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise FileError(f"{table.name} cannot be read as a table; check the file.") from None
    first = text.lstrip().partition("\n")[0]
    delimiter = next((sign for sign in "\t;," if sign in first), ",")
    rows = list(csv.DictReader(text.splitlines(), delimiter=delimiter))
    heads = {_column(head): head for head in (rows[0] if rows else {}) if head}
    if not rows or not set(_ROLES) <= set(heads):
        raise FileError(
            f"{table.name} holds no table of pairs; a line fixed,moving and a line for each pair "
            "were expected."
        )
    found = []
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise FileError(
                f"Line {number} of {table.name} has more cells than the first line names; name "
                "them all."
            )
        said = {name: str(row[head] or "").strip() for name, head in heads.items()}
        if not said["fixed"] or not said["moving"]:
            raise FileError(f"Line {number} of {table.name} does not name two images.")
        found.append(_pair_of(said, table.parent))
    return named_pairs(found)


def _column(head: str) -> str:
    """The name of a column however it is written: Fixed mask is fixed_mask."""
    return head.strip().lower().replace(" ", "_").replace("-", "_")


def _pair_of(said: Mapping[str, str], folder: Path) -> Pair:
    """The pair in a row, by the names of its columns."""
    fixed, moving = said["fixed"], said["moving"]
    initial = said.get("initial") or None
    fixed_mask, moving_mask = (folder / said[x] if said.get(x) else None for x in _MASKS)
    return Pair(
        said.get("name") or f"{_stem(fixed)}-{_stem(moving)}",
        folder / fixed,
        folder / moving,
        fixed_mask,
        moving_mask,
        initial if initial is None or initial in WORDS else folder / initial,
    )


def pairs_in_folder(
    folder: Path, rule: Sequence[str] | None = None
) -> tuple[list[Pair], list[Path]]:
    """The pairs in a folder whose names differ only as two patterns do, and fixed images alone.

    rule: the patterns of the fixed and of the moving images below folder, such as *_A.jpg and
    *_B.jpg; what stands for a star must be the same in both. DEFAULT_RULES for None, the first of
    them that finds a pair. Raises OptionError for patterns that cannot be a rule or find nothing.
    """
    for fixed_pattern, moving_pattern in [rule] if rule else DEFAULT_RULES:
        if not 1 <= fixed_pattern.count("*") == moving_pattern.count("*"):
            raise OptionError(
                f"{fixed_pattern} and {moving_pattern} were given as patterns; each needs a *, and "
                "both the same number of them."
            )
        fixed, moving = (_by_star(folder, p) for p in (fixed_pattern, moving_pattern))
        both = [key for key in sorted(fixed) if key in moving]
        if both:
            pairs = [Pair("-".join(_words(key)), fixed[key], moving[key]) for key in both]
            return named_pairs(pairs), [fixed[key] for key in sorted(set(fixed) - set(moving))]
    shown = " and ".join(rule) if rule else ", ".join(" and ".join(each) for each in DEFAULT_RULES)
    raise OptionError(
        f"No two images in {folder.name} are named by {shown}; name patterns with --pair, such as "
        "--pair '*_A.jpg' '*_B.jpg', or give a table of pairs."
    )


def _by_star(folder: Path, pattern: str) -> dict[tuple[str, ...], Path]:
    """Files by what stands for the stars; the ending counts unless it is a star of its own."""
    is_open = pattern.endswith(".*")
    plain = pattern.removesuffix(".*") if is_open else pattern
    parts = [re.escape(part) for part in plain.split("*")]
    matcher = re.compile("([^/]*)".join(parts) + (r"\.[^/]+" if is_open else ""))
    found: dict[tuple[str, ...], Path] = {}
    for path in sorted(folder.glob(pattern)):
        matched = matcher.fullmatch(path.relative_to(folder).as_posix())
        if matched:
            found.setdefault(matched.groups(), path)
    return found


def _words(key: tuple[str, ...]) -> list[str]:
    return [word.partition(".")[0] or word for word in key if word]


def _stem(path: str) -> str:
    return Path(path).name.partition(".")[0]


def named_pairs(found: Sequence[Pair]) -> list[Pair]:
    """The pairs with names that can be folders; those that occur twice get a number."""
    names = [_UNSAFE.sub("_", pair.name).strip("._")[:_LONGEST_NAME] or "pair" for pair in found]
    often = Counter(name.lower() for name in names)
    return [
        replace(pair, name=name if often[name.lower()] == 1 else f"{name}-{n:03d}")
        for n, (name, pair) in enumerate(zip(names, found, strict=True), start=1)
    ]
