"""Which images belong together: by a table, or by the names of the files in a folder."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retreg.errors import FileError, OptionError

DEFAULT_RULES = (("*/fixed.*", "*/moving.*"), ("*_fixed.*", "*_moving.*"), ("fixed/*", "moving/*"))
_ROLES = ("fixed", "moving")
_UNSAFE = re.compile(r"[^\w.-]+")
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Pair:
    """Two images to be registered. name: of the folder of their result, without a slash."""

    name: str
    fixed: Path
    moving: Path


def pairs_in_table(table: Path) -> list[Pair]:
    """The pairs in a table (.csv, .tsv) with the columns fixed, moving and, if wanted, name.

    Paths count from the folder of the table. Raises FileError.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise FileError(f"{table.name} cannot be read as a table; check the file.") from None
    first = text.lstrip().partition("\n")[0]
    delimiter = next((sign for sign in "\t;," if sign in first), ",")
    rows = list(csv.DictReader(text.splitlines(), delimiter=delimiter))
    heads = {head.strip().lower(): head for head in (rows[0] if rows else {}) if head}
    if not rows or not set(_ROLES) <= set(heads):
        raise FileError(
            f"{table.name} holds no table of pairs; a line fixed,moving and a line for each pair "
            "were expected."
        )
    found = []
    for number, row in enumerate(rows, start=2):
        fixed, moving = (str(row[heads[role]] or "").strip() for role in _ROLES)
        if not fixed or not moving:
            raise FileError(f"Line {number} of {table.name} does not name two images.")
        name = str(row[heads["name"]] or "").strip() if "name" in heads else ""
        found.append((name or f"{_stem(fixed)}-{_stem(moving)}", fixed, moving))
    return named_pairs([(name, table.parent / f, table.parent / m) for name, f, m in found])


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
            pairs = named_pairs([("-".join(_words(key)), fixed[key], moving[key]) for key in both])
            return pairs, [fixed[key] for key in sorted(set(fixed) - set(moving))]
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


def named_pairs(found: list[tuple[str, Path, Path]]) -> list[Pair]:
    """Pairs with names that can be folders; those that occur twice get a number."""
    names = [_UNSAFE.sub("_", name).strip("._")[:_LONGEST_NAME] or "pair" for name, _, _ in found]
    often = Counter(name.lower() for name in names)
    return [
        Pair(name if often[name.lower()] == 1 else f"{name}-{n:03d}", fixed, moving)
        for n, (name, (_, fixed, moving)) in enumerate(zip(names, found, strict=True), start=1)
    ]
