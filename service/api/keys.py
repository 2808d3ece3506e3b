"""Keys of the public routes and their rate limits. A file holds each key's name, hash and limits, never the key itself.

    [[keys]]
    name = "gateway"
    sha256 = "9f86d081…"
    requests_per_minute = 600
    max_in_flight = 32

JSON works too: `{"keys": [{"name": …}]}`. A changed file is read again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_urlsafe
from time import monotonic
from typing import Annotated

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.concurrency import file_work
from service.errors import InvalidRequest, RateLimited, UserError
from service.files import read_text, write_atomically

CHECK_SECONDS = 1.0
"""Shortest time between two looks at the file."""

Limit = Annotated[int, Field(ge=1)]

log = logging.getLogger(__name__)


class Key(BaseModel):
    """A caller and its limits. Every image of a batch or a ranking counts as one request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    requests_per_minute: Limit | None = None
    max_in_flight: Limit | None = None


class KeysFile(BaseModel):
    """Content of the file."""

    model_config = ConfigDict(extra="forbid")

    keys: Annotated[list[Key], Field(min_length=1)]

    @model_validator(mode="after")
    def _all_different(self) -> KeysFile:
        for field in ("name", "sha256"):
            if len({getattr(key, field) for key in self.keys}) < len(self.keys):
                raise ValueError(f"two keys have the same {field}")
        return self


class Keys:
    """The keys of a file, read again when it changes. A broken file leaves the previous keys in force."""

    def __init__(self, file: Path) -> None:
        """Raises UserError if the file is missing or broken."""
        self._file = file
        self._stamp = _stamp(file)
        self._keys = read_keys(file)
        self._checked = monotonic()

    async def find(self, token: str) -> Key | None:
        """The key that matches a token, or None. Takes the same time for every token, known or not."""
        if monotonic() - self._checked >= CHECK_SECONDS:
            self._checked = monotonic()
            await file_work(self._refresh)
        given = hashlib.sha256(token.encode()).hexdigest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(given, key.sha256):
                found = key
        return found

    def _refresh(self) -> None:
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._file)
        except UserError as error:
            log.error("the keys file was not reloaded, the earlier keys stay valid: %s", error)
        else:
            log.info("read %d keys", len(self._keys))


def read_keys(file: Path) -> list[Key]:
    """The keys of a TOML file, or of a JSON file named so. Raises UserError."""
    try:
        text = read_text(file, "the keys file")
        content = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
        return KeysFile.model_validate(content).keys
    except OSError as error:
        raise UserError(f"the keys file {file} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"the keys file {file} is wrong: {where or 'keys'}: {first['msg']}") from None
    except ValueError as error:
        raise UserError(
            f"the keys file {file} is not valid {file.suffix.lstrip('.').upper() or 'TOML'}: {error}"
        ) from None


def add_key(file: Path, name: str, requests_per_minute: int | None, max_in_flight: int | None) -> str:
    """Creates a key, adds its hash to the file (readable by its owner only), and returns the key.

    Raises UserError if the name is taken or malformed, or if the file is broken. The file then stays as it was.
    """
    secret = token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    known = read_keys(file) if file.exists() else []
    try:
        key = Key(name=name, sha256=digest, requests_per_minute=requests_per_minute, max_in_flight=max_in_flight)
        all_keys = KeysFile(keys=[*known, key])
    except ValidationError as error:
        raise UserError(f"the key {name!r} cannot be added: {error.errors()[0]['msg']}") from None
    as_json = all_keys.model_dump_json(indent=2, exclude_none=True) + "\n"
    write_atomically(file, as_json if file.suffix == ".json" else _appended(file, key), mode=0o600)
    return secret


def _appended(file: Path, key: Key) -> str:
    """The present text, comments included, plus one table. JSON strings and numbers are valid TOML."""
    before = read_text(file).rstrip() + "\n\n" if file.exists() else ""
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in key.model_dump(exclude_none=True).items())
    return f"{before}[[keys]]\n{''.join(lines)}"


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """Changes whenever the file is written or replaced, also behind the symbolic links of a mounted Secret."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


WINDOW_SECONDS = 60


class Rates:
    """A moving window of one minute and a count of running requests for each key. Every replica counts for itself."""

    def __init__(self) -> None:
        self._storage = MemoryStorage()
        self._window = MovingWindowRateLimiter(self._storage)
        self._running: Counter[str] = Counter()

    async def charge(self, key: Key, count: int, paid: int = 0) -> None:
        """Charges `count` requests to a key, all or none; `paid` of them are charged already.

        Raises RateLimited; InvalidRequest if the key never allows so many at once.
        """
        limit = key.requests_per_minute
        if limit is None or count == paid:
            return
        item = RateLimitItemPerMinute(limit)
        if count <= limit and await self._window.hit(item, key.name, cost=count - paid):
            return
        events = self._storage.events.get(item.key_for(key.name), [])  # the latest first
        del events[:paid]
        if count > limit:
            raise InvalidRequest(
                f"The request holds {count} images, but this key may send {limit} a minute; send fewer."
            )
        wait = math.ceil(events[limit - count].atime + WINDOW_SECONDS - time.time())
        raise RateLimited(f"This key's limit is {limit} requests a minute.", max(1, wait))

    @contextmanager
    def running(self, key: Key) -> Iterator[None]:
        """Counts a running request until the block ends. Raises RateLimited beyond the key's `max_in_flight`."""
        if key.max_in_flight is not None and self._running[key.name] >= key.max_in_flight:
            raise RateLimited(f"This key's limit is {key.max_in_flight} requests at once.", 1)
        self._running[key.name] += 1
        try:
            yield
        finally:
            self._running[key.name] -= 1
