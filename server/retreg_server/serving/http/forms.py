"""Forms as they come from curl, MONAI Label's client and browsers: fields, and files in memory.

Nothing touches a disk, nothing is decoded but UTF-8, and each step takes a small piece only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from retreg_server.serving.errors import ApiError
from retreg_server.serving.memory_account import Account
from retreg_server.serving.workers.messages import BufferWriter, SharedBuffer

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FILES = 4000  # two series
MAX_NAME_BYTES = 200
PIECE_BYTES = 1 << 14
MULTIPART, URLENCODED = b"multipart/form-data", b"application/x-www-form-urlencoded"


@dataclass(frozen=True, eq=False)
class SentFiles:
    """The files in a field of a form. names: as the client has them. sizes: bytes of each.

    content: the files one after the other.
    """

    names: Sequence[str]
    sizes: Sequence[int]
    content: SharedBuffer


@dataclass(frozen=True)
class FormLimits:
    """How many fields, and how many bytes each may have."""

    fields: int
    field_bytes: int


@dataclass
class Form:
    """What was sent, by name of the field."""

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, SentFiles] = field(default_factory=dict)


async def read_form(request: Request, limits: FormLimits, account: Account) -> Form:
    """The form in the body of a request, whose files are counted in the account.

    Raises ApiError for one that is not well-formed, or when there is no room for it.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise ApiError(415, "bad-input", "The form is not in UTF-8, which was expected.")
    try:
        if kind == MULTIPART and b"boundary" in options:
            parts = _Parts(limits, account)
            return await _multipart(request, options[b"boundary"], parts)
        if kind == URLENCODED:
            return Form(await _urlencoded(request, limits))
    except (FormParserError, UnicodeDecodeError, ValueError):
        raise _bad("is not well-formed; send multipart/form-data in UTF-8") from None
    return Form()


async def _multipart(request: Request, boundary: bytes, parts: _Parts) -> Form:
    parser = MultipartParser(boundary, parts.callbacks())
    async for chunk in request.stream():
        for begun in range(0, len(chunk), PIECE_BYTES):
            parser.write(chunk[begun : begun + PIECE_BYTES])
            await asyncio.sleep(0)  # others come in between
    return parts.form()


async def _urlencoded(request: Request, limits: FormLimits) -> dict[str, str]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.fields * limits.field_bytes:
            raise _bad(f"exceeds {limits.fields} fields of {limits.field_bytes} bytes")
    return dict(parse_qsl(body.decode("utf-8"), True, max_num_fields=limits.fields))


class _Field:
    """The files of one field, as they come."""

    def __init__(self, account: Account) -> None:
        self.names: list[str] = []
        self.sizes: list[int] = []
        self.writer = BufferWriter(account.claim())


class _Parts:
    """What the parser tells of the parts of a form, one after the other."""

    def __init__(self, limits: FormLimits, account: Account) -> None:
        self._is_complete = False
        self._limits, self._account = limits, account
        self._name = ""
        self._texts: dict[str, str] = {}
        self._fields: dict[str, _Field] = {}
        self._files = 0
        self._field: _Field | None = None  # that the part belongs to, when it is a file
        self._text = bytearray()
        self._line, self._value = bytearray(), bytearray()
        self._disposition: Mapping[bytes, bytes] = {}

    def callbacks(self) -> MultipartCallbacks:
        """For MultipartParser."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, begun, end: self._line.extend(data[begun:end]),
            "on_header_value": lambda data, begun, end: self._value.extend(data[begun:end]),
            "on_header_end": self._header,
            "on_headers_finished": self._headers,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._complete,
        }

    def form(self) -> Form:
        """All of it. Raises ApiError when its last line has not come."""
        if not self._is_complete:
            raise _bad("ends before its last line; send all of it")
        files = {
            name: SentFiles(each.names, each.sizes, each.writer.finished())
            for name, each in self._fields.items()
        }
        return Form(self._texts, files)

    def _begin(self) -> None:
        self._disposition, self._field = {}, None
        self._text.clear()

    def _header(self) -> None:
        if self._line.lower() == b"content-disposition":
            _, self._disposition = parse_options_header(self._value.decode("latin-1"))
        self._line.clear()
        self._value.clear()

    def _headers(self) -> None:
        name = self._disposition.get(b"name", b"")
        if not 0 < len(name) <= MAX_NAME_BYTES:
            raise _bad("has a part without a usable name")
        self._name = name.decode("utf-8")
        if b"filename" in self._disposition:
            self._begin_file(self._disposition[b"filename"].decode("utf-8", "replace"))
        elif self._name in self._texts or self._name in self._fields:
            raise _bad("has two fields of the same name; send each once")
        elif len(self._texts) == self._limits.fields:
            raise _bad(f"has more than {self._limits.fields} fields")

    def _begin_file(self, filename: str) -> None:
        if self._name in self._texts:
            raise _bad("has a field and a file of the same name; send one of them")
        if self._files == MAX_FILES:
            raise _bad(f"has more than {MAX_FILES} files")
        self._files += 1
        self._field = self._fields.setdefault(self._name, _Field(self._account))
        self._field.names.append(filename)
        self._field.sizes.append(0)

    def _data(self, data: bytes, begun: int, end: int) -> None:
        if self._field is not None:
            self._field.writer.write(data[begun:end])
            self._field.sizes[-1] += end - begun
            return
        self._text += data[begun:end]
        if len(self._text) > self._limits.field_bytes:
            raise _bad(f"has a field of more than {self._limits.field_bytes} bytes")

    def _end(self) -> None:
        if self._field is None:
            self._texts[self._name] = self._text.decode("utf-8")

    def _complete(self) -> None:
        self._is_complete = True


def _bad(what: str) -> ApiError:
    return ApiError(400, "bad-input", f"The form {what}.")
