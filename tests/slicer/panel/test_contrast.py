"""Coloured texts of the panel can be read in light and in dark themes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

MODULE = Path(__file__).parents[3] / "SlicerRetReg"
SOURCES = [*sorted((MODULE / "RetRegLib").rglob("*.py")), MODULE / "Resources/UI/RetReg.ui"]
STYLE = re.compile(r"""["'>]([^"'<>]*?\bcolor\s*:[^"'<>]*)["'<]""")
LEAST = 4.5  # WCAG 2.2, 1.4.3, for text of usual size


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, as WCAG 2.2 defines it."""
    levels = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in levels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def styles(text: str) -> list[str]:
    """Everything in quotes or between tags that sets the colour of a text."""
    return [s for s in STYLE.findall(text) if re.search(r"(?<![-\w])color\s*:", s)]


def is_readable(style: str) -> bool:
    """Whether it sets the background as well, and far enough from the text."""
    text = re.search(r"(?<![-\w])color\s*:\s*(#[0-9a-fA-F]{6})", style)
    ground = re.search(r"background(?:-color)?\s*:\s*(#[0-9a-fA-F]{6})", style)
    return bool(text and ground and contrast(text[1], ground[1]) >= LEAST)


def test_the_formula_gives_the_values_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_every_coloured_text_has_its_own_background_and_enough_contrast():
    found = {s: path.name for path in SOURCES for s in styles(path.read_text("utf-8"))}
    assert len(found) >= 3
    assert {s: name for s, name in found.items() if not is_readable(s)} == {}


@pytest.mark.parametrize(
    "style",
    [
        '<span style="color:#2e8b57">good</span>',  # whatever the theme has behind it
        '"color: #777777; background: #ffffff;"',
        '"color: red; background: #ffffff;"',
    ],
)
def test_a_text_that_cannot_be_read_would_be_found(style):
    (found,) = styles(style)
    assert not is_readable(found)


def test_no_palette_of_the_form_colours_a_text():
    assert "<palette" not in (MODULE / "Resources/UI/RetReg.ui").read_text("utf-8")
