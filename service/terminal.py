"""Output that any terminal and pipe takes."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PLAIN = {"±": "+/-", "–": "-", "—": "-", "−": "-", "…": "...", "→": "->", "×": "x", "█": "#", "•": "*"}


def _substitute(error: UnicodeError) -> tuple[str, int]:
    """Characters that the encoding lacks as ASCII; bytes of file names, and the rest, as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(_PLAIN.get(one) or _escaped(one) for one in found), error.end


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8
        return f"\\x{ord(character) & 0xFF:x}"
    return character.encode("ascii", "backslashreplace").decode()


@contextmanager
def any_terminal() -> Iterator[None]:
    """Makes a program's output fit the terminal's encoding, and lets it end in peace if nobody reads it (`| head`)."""
    codecs.register_error("substitute", _substitute)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="substitute")
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # Python would print it at the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
