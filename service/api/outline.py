"""JSON bodies that hold images, read in bounded steps whatever they are made of.

A JSON parser keeps the interpreter to itself until it is done. So long texts, which are images, are set aside while the
body arrives. What is left is limited in bytes and in items, and small enough for a parser.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from service.api.problems import describe
from service.errors import InvalidRequest

_SHORT = 256
"""Bytes of a text that stays where it is."""
_BYTES_AN_ITEM = 128
"""Of everything but long texts, spaces included."""
_FLUSH = 64 * 1024
_TEXT = re.compile(rb'[^"\\]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\]*+)*+')
"""The inside of a text, up to its end or to an escape that is wrong or cut off."""
_CUT_OFF = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?")

Options = TypeVar("Options", bound=BaseModel)


class Outline:
    """A JSON body of up to `items` items with stand-ins for its long texts. Raises InvalidRequest as soon as it can.

    A text is cut off beyond `longest` bytes, more than an image may have: it is refused for its size in any case.
    """

    def __init__(self, items: int, longest: int) -> None:
        self._longest = longest
        self._outline = bytearray()
        self._items_left = items
        self._most_bytes = items * _BYTES_AN_ITEM
        self._rest = b""
        self._inside = False
        self._text = bytearray()
        self._parts: list[str] = []
        self._aside: dict[str, str] = {}

    def feed(self, piece: bytes) -> None:
        """Takes the next bytes of the body."""
        data, at = self._rest + piece, 0
        self._rest = b""
        while at < len(data):
            end = data.find(b'"', at)
            end = len(data) if end < 0 else end
            if not self._inside:
                self._items_left -= sum(data.count(sign, at, end) for sign in (b",", b"[", b"{"))
                self._write(data[at:end])
            else:
                if data.find(b"\\", at, end) >= 0:
                    end = _TEXT.match(data, at).end()  # type: ignore[union-attr]  # it matches nothing, too
                self._read(data[at:end])
                if data.startswith(b"\\", end):
                    self._rest = data[end:]
                    if not _CUT_OFF.fullmatch(self._rest):
                        raise InvalidRequest("body: Invalid JSON: an escape in a text is wrong.")
                    return
                if end < len(data):
                    self._end_text()
            self._inside ^= end < len(data)
            at = end + 1

    def message(self, model: type[Options]) -> Options:
        """The message that the body holds, once all of it is there. Names the field but does not repeat its value."""
        if self._inside:
            raise InvalidRequest("body: Invalid JSON: it ends within a text.")
        try:
            found = model.model_validate_json(bytes(self._outline), extra="forbid")
        except ValidationError as error:
            told = describe(error)
            raise InvalidRequest(told.partition(" at line ")[0] if self._aside else told) from None
        json.loads(self._outline, object_pairs_hook=_different)
        for name in found.model_fields_set:
            found.__dict__[name] = self._restored(getattr(found, name))
        if self._aside:
            raise InvalidRequest(f"body: only an image may be a text of more than {_SHORT} bytes.")
        return found

    def _write(self, data: bytes) -> None:
        self._outline += data
        if self._items_left < 0 or len(self._outline) > self._most_bytes:
            raise InvalidRequest("body: too many fields or items, or too many spaces between them.")

    def _read(self, data: bytes) -> None:
        self._text += data
        if len(self._text) >= _FLUSH:
            self._set_aside()

    def _set_aside(self) -> None:
        """Decodes the text so far."""
        try:
            part = from_json(b'"%b"' % bytes(self._text))
        except ValueError:
            raise InvalidRequest("body: Invalid JSON: a text is not valid.") from None
        if not part.isascii():
            raise InvalidRequest(f"body: a text of more than {_SHORT} bytes may hold ASCII characters only.")
        if sum(map(len, self._parts)) <= self._longest:
            self._parts.append(part)
        self._text.clear()

    def _end_text(self) -> None:
        if self._parts or len(self._text) > _SHORT:
            self._set_aside()
            stand_in = f"<text {len(self._aside)}>"  # who sends the same only refers to a text of his own
            self._aside[stand_in] = "".join(self._parts)
            self._parts.clear()
            self._text += stand_in.encode()
        self._write(b'"%b"' % bytes(self._text))
        self._text.clear()

    def _restored(self, value: Any) -> Any:
        """A field's value with the long texts in their places."""
        if isinstance(value, str):
            return self._aside.pop(value, value)
        if isinstance(value, list):
            return [self._restored(one) for one in value]
        if isinstance(value, dict):
            return {name: self._restored(one) for name, one in value.items()}
        return value


def _different(pairs: list[tuple[str, Any]]) -> None:
    """Refuses an object in which a name stands twice: which of the two is meant?"""
    if len({name for name, _ in pairs}) < len(pairs):
        raise InvalidRequest("body: a name is given twice.")
