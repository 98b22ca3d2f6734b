"""`retreg token`: make a token for a client of a server."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tomllib
from pathlib import Path
from typing import Any

from retreg.errors import InputError

HELP = "make a token for a client of a server"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("name", help="of the client, as the log will show it")
    parser.add_argument(
        "--file", type=Path, required=True, help="the server's --tokens-file; written anew"
    )
    parser.add_argument(
        "--rights",
        choices=("register", "read", "admin"),
        help="register (default), read its own results only, or admin: everything of everybody",
    )
    parser.add_argument("--group", help="shares images and results with others of the group")
    parser.add_argument("--jobs", type=int, help="registrations at the same time")
    parser.add_argument(
        "--replace", action="store_true", help="let the former token of that name end at once"
    )


def run(args: argparse.Namespace) -> int:
    """Print a new token, once; the file has its hash only. A name may have two for a while.

    Raises InputError when the file cannot be used.
    """
    from retreg_server.serving.access.tokens import hash_of, read_tokens

    token = secrets.token_urlsafe(32)
    entries = _entries(args.file)
    known = entries.get(args.name, {})
    before = known.get("sha256", [])
    before = [before] if isinstance(before, str) else list(before)
    entry = {
        **known,
        "sha256": [hash_of(token.encode("ascii")), *([] if args.replace else before)],
        "rights": [args.rights] if args.rights else known.get("rights", ["register"]),
        **{key: value for key in ("group", "jobs") if (value := getattr(args, key)) is not None},
    }
    draft = args.file.with_name(f"{args.file.name}.{os.getpid()}.tmp")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(_text({**entries, args.name: entry}))
        if args.file.exists():
            draft.chmod(args.file.stat().st_mode & 0o777)  # the server may be another user
        read_tokens(draft)  # which says what is wrong with a name or a number
        draft.replace(args.file)
    except OSError:
        raise InputError(
            f"The file {args.file.name} cannot be written; check the folder."
        ) from None
    finally:
        draft.unlink(missing_ok=True)
    print(token)
    print("This is the only time that the token is shown.", file=sys.stderr)
    return 0


def _entries(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise InputError(f"The file {path.name} cannot be read; it must be valid TOML.") from None


def _text(entries: dict[str, Any]) -> str:
    lines = []
    for name, entry in entries.items():
        lines.append(f"[{name}]" if name.isalnum() else f'["{name}"]')
        for key, value in entry.items():
            items = value if isinstance(value, list) else [value]
            texts = [str(item) if isinstance(item, int) else f'"{item}"' for item in items]
            text = ", ".join(texts)
            lines.append(f"{key} = [{text}]" if items is value else f"{key} = {text}")
        lines.append("")
    return "\n".join(lines)
