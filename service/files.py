"""Text files and file names as people have them, reads that expect anything, and atomic writes: a reader, or a crash,
finds the old file or the whole new one."""

from __future__ import annotations

import codecs
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from service.errors import UserError

PARTIAL = ".partial"
"""Names of files that a kill left half written end so."""
LARGEST = 16 * 2**20
"""Bytes of a JSON file; more is not read."""
M = TypeVar("M", bound=BaseModel)
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins like UTF-16's
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def printable(name: str | Path) -> str:
    """A file's name as text; bytes that are not UTF-8 become escapes such as `\\xe9`."""
    return str(name).encode(errors="surrogateescape").decode(errors="backslashreplace")


def existing(file: Path) -> Path:
    """The file, or the one of the same name in another Unicode form, composed or decomposed."""
    forms = (Path(unicodedata.normalize(form, str(file))) for form in ("NFC", "NFD"))
    return next(filter(os.path.exists, (file, *forms)), file)


def open_text(file: Path, errors: str = "strict") -> TextIO:
    """Opens a text file behind its byte-order mark: UTF-8, or UTF-16 or UTF-32 if marked so. Raises OSError."""
    with file.open("rb") as stream:
        begin = stream.read(4)
    encoding = next((name for mark, name in _MARKS.items() if begin.startswith(mark)), "utf-8")
    return file.open(encoding=encoding, errors=errors)


def read_text(file: Path, called: str = "the file") -> str:
    """The content of a text file, see `open_text`. Raises OSError; UserError for another encoding."""
    try:
        with open_text(file) as stream:
            text = stream.read()
    except UnicodeError:
        text = "\0"
    if "\0" in text:  # UTF-16 without its mark
        raise UserError(f"{called} {file} is not UTF-8 text; save it again with the encoding UTF-8")
    return text


def read_key(file: Path) -> str:
    """The operators' key in a file. Raises OSError; UserError if it holds none."""
    key = read_text(file, "the key file").strip()
    if not (key and key.isascii() and key.isprintable()):
        raise UserError(f"the key file {file} is empty or does not hold a key, which is one line of ASCII characters")
    return key


class Unreadable(Exception):
    """A file that is there but does not hold what it should. The text says why."""


def read_json(file: Path, model: type[M]) -> M:
    """What a JSON file holds. Raises FileNotFoundError; Unreadable for whatever else may lie there."""
    try:
        if file.is_symlink() or (file.exists() and not file.is_file()):  # opening a pipe would wait for ever
            raise Unreadable("it is not a regular file")
        with file.open("rb") as stream:
            data = stream.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise Unreadable(f"it is longer than {LARGEST} bytes")
        keeps_all = model.model_config.get("extra") == "allow"
        return model.model_validate_json(data, extra=None if keeps_all else "ignore")  # newer versions write more
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(file) from None
    except OSError as error:
        raise Unreadable(error.strerror or "an error of the disk") from None
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        raise Unreadable(f"{'.'.join(map(str, wrong['loc'])) or 'its content'}: {wrong['msg']}"[:200]) from None


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yields a path beside `file` to write to; when the block ends, that file is synced and takes the name.

    A block that fails leaves `file` as it was. Raises OSError.
    """
    beside = file.with_name(f".{file.name}-{uuid4().hex}{PARTIAL}")
    try:
        yield beside
        sync(beside)
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)  # a full disk leaves a part
    sync(file.parent)


def write_atomically(file: Path, text: str, mode: int = 0o666) -> None:
    """Replaces a text file. `mode` is its permissions before the umask. Raises OSError."""
    with replacing(file) as beside, open(beside, "x", opener=lambda path, flags: os.open(path, flags, mode)) as stream:
        stream.write(text)


def sync(path: Path) -> None:
    """Flushes a file or a folder to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
