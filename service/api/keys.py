"""The public routes' keys: a file with a name, a hash and limits for each; the keys themselves are kept nowhere.

    [[keys]]
    name = "gateway"
    sha256 = "9f86d081…"
    requests_per_minute = 600
    max_in_flight = 32

JSON holds the same: `{"keys": [{"name": …}]}`. A file that changes is read again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import tomllib
from pathlib import Path
from secrets import token_urlsafe
from time import monotonic
from typing import Annotated
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

CHECK_SECONDS = 1.0
"""How often, at most, the file is looked at."""

Limit = Annotated[int, Field(ge=1)]

log = logging.getLogger(__name__)


class Key(BaseModel):
    """Who may ask, and how much. An image of a batch or a ranking counts as a request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    requests_per_minute: Limit | None = None
    max_in_flight: Limit | None = None


class KeysFile(BaseModel):
    """The file's content."""

    model_config = ConfigDict(extra="forbid")

    keys: Annotated[list[Key], Field(min_length=1)]

    @model_validator(mode="after")
    def _all_different(self) -> KeysFile:
        for field in ("name", "sha256"):
            if len({getattr(key, field) for key in self.keys}) < len(self.keys):
                raise ValueError(f"two keys have the same {field}")
        return self


class Keys:
    """The keys of a file, read again when it changes; a broken file leaves those known before."""

    def __init__(self, file: Path) -> None:
        """Raises ValueError if the file is missing or broken."""
        self._file = file
        self._stamp = _stamp(file)
        self._keys = read_keys(file)
        self._checked = monotonic()

    def find(self, token: str) -> Key | None:
        """The key whose hash is the token's. Takes the same time for every token, whether and where it is known."""
        self._refresh()
        given = hashlib.sha256(token.encode()).hexdigest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(given, key.sha256):
                found = key
        return found

    def _refresh(self) -> None:
        if monotonic() - self._checked < CHECK_SECONDS:
            return
        self._checked = monotonic()
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._file)
        except ValueError as error:
            log.error("the keys stay as they were: %s", error)
        else:
            log.info("read %d keys", len(self._keys))


def read_keys(file: Path) -> list[Key]:
    """The keys of a TOML file, or of a JSON file named so. Raises ValueError."""
    try:
        text = file.read_text()
        content = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
        return KeysFile.model_validate(content).keys
    except OSError as error:
        raise ValueError(f"the keys file {file} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"the keys file {file} is wrong: {where or 'keys'}: {first['msg']}") from None
    except ValueError as error:
        raise ValueError(f"the keys file {file} is no {file.suffix.lstrip('.').upper() or 'TOML'}: {error}") from None


def add_key(file: Path, name: str, requests_per_minute: int | None, max_in_flight: int | None) -> str:
    """Makes a key, adds its hash to the file (made for its owner's eyes only), and returns the key.

    Raises ValueError if the name is taken or malformed, or the file is broken: it is then left as it was.
    """
    secret = token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    known = read_keys(file) if file.exists() else []
    try:
        key = Key(name=name, sha256=digest, requests_per_minute=requests_per_minute, max_in_flight=max_in_flight)
        KeysFile(keys=[*known, key])
    except ValidationError as error:
        raise ValueError(f"the key {name!r} cannot be added: {error.errors()[0]['msg']}") from None
    _replace(file, _json([*known, key]) if file.suffix == ".json" else _appended(file, key))
    return secret


def _json(keys: list[Key]) -> str:
    return KeysFile(keys=keys).model_dump_json(indent=2, exclude_none=True) + "\n"


def _appended(file: Path, key: Key) -> str:
    """The file as it is, comments and all, and one table more; JSON's strings and numbers are TOML's too."""
    before = file.read_text().rstrip() + "\n\n" if file.exists() else ""
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in key.model_dump(exclude_none=True).items())
    return f"{before}[[keys]]\n{''.join(lines)}"


def _replace(file: Path, text: str) -> None:
    beside = file.with_name(f".{file.name}-{uuid4().hex}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
    os.replace(beside, file)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """What changes whenever a file is written or replaced, a mounted Secret's symbolic links included."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
