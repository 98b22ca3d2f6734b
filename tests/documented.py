"""What README and the pages of docs/ tell the reader to type."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, if it names one, and its text."""

    page: str
    language: str
    text: str


def blocks() -> list[Block]:
    """All fenced blocks, page by page."""
    found = []
    for page in PAGES:
        for fenced in page.read_text("utf-8").split("```")[1::2]:
            language, _, text = fenced.partition("\n")
            found.append(Block(page.name, language, text))
    return found


def commands() -> list[tuple[str, str]]:
    """(page, command) of every block without a language; what goes on below is one command."""
    found = []
    for block in blocks():
        if block.language:
            continue
        text = block.text.replace("\\\n", " ")
        if text.lstrip().startswith("curl"):
            parts = [f"curl {part.strip()}" for part in text.split("curl ")[1:]]
        else:
            parts = [line.partition(" #")[0].strip() for line in text.splitlines()]
        found += [(block.page, part) for part in parts if part]
    return found


def python_blocks(page: str) -> list[str]:
    """The Python of one page, from top to bottom."""
    return [b.text for b in blocks() if (b.page, b.language) == (page, "python")]
