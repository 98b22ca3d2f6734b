"""What a file says of its image, as far as it may travel: never the patient."""

from __future__ import annotations

from typing import Any, get_args

from retreg.about import About, Content
from retreg.errors import InputError
from retreg.wire import fields

MAX_NOTES = 6
MAX_NOTE_CHARACTERS = 300  # all of it goes into a header line of at most 4096 characters
MAX_CODE_CHARACTERS = 64
MAX_TOKENS = 3
_CODES = ("laterality", "region", "body_part")


def encode_about(about: About) -> dict[str, Any]:
    """JSON of what is known and no secret; empty where nothing is."""
    message: dict[str, Any] = {"content": about.content}
    message |= {name: getattr(about, name)[:MAX_CODE_CHARACTERS] for name in _CODES}
    message["tokens"] = [token[:MAX_CODE_CHARACTERS] for token in about.tokens[:MAX_TOKENS]]
    message["notes"] = [note[:MAX_NOTE_CHARACTERS] for note in about.notes[:MAX_NOTES]]
    return {name: value for name, value in message.items() if value}


def decode_about(message: Any) -> About:
    """What a message says; every field may be absent. Raises InputError."""
    contents: dict[str, Content] = {name: name for name in get_args(Content)}
    content = fields.text(message, "content") if "content" in message else ""
    if content not in contents:
        known = ", ".join(filter(None, contents))
        raise InputError(f"The content {content!r} is not one of {known}.")
    codes: dict[str, Any] = {name: _short(message, name) for name in _CODES}
    notes = fields.texts(message, "notes", MAX_NOTES) if "notes" in message else ()
    codes["tokens"] = fields.texts(message, "tokens", MAX_TOKENS) if "tokens" in message else ()
    return About(contents[content], notes, **codes)


def _short(message: Any, name: str) -> str:
    code = fields.text(message, name) if name in message else ""
    if len(code) > MAX_CODE_CHARACTERS or not code.isprintable():
        raise InputError(
            f"The field {name!r} is not a code of at most {MAX_CODE_CHARACTERS} characters."
        )
    return code
