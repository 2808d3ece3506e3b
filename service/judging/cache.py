"""A cache of repeatable answers. A swap empties it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar, cast

from cachetools import LRUCache
from pydantic import BaseModel

from evoquality.contract import Options, VersionInfo
from service.images.decoder import Picture
from service.judging.plan import Plan, planned, wants_text
from service.observability import metrics
from service.prompts import PROFILES

Answer = TypeVar("Answer", bound=BaseModel)
_IMAGES = {"image", "images", "first", "second"}
_PLANNED = {"mode", "samples", "thoughts", "temperature", "seed"}


@dataclass(frozen=True, slots=True)
class Key(Generic[Answer]):
    """Everything that decides an answer: kind, version, parameters with their defaults, digests of the files."""

    kind: type[Answer]
    version: str
    parameters: str
    digests: tuple[str, ...]


def key_of(
    kind: type[Answer], version: VersionInfo, pictures: Sequence[Picture], options: Options
) -> Key[Answer] | None:
    """The key of a request. None if the answer is another one each time, or carries texts, which may be long.

    Raises InvalidRequest as `chosen_mode`.
    """
    digests = tuple(picture.digest for picture in pictures)
    plan = planned(options, PROFILES[version.profile], digests)
    if not plan.repeatable or wants_text(options):
        return None
    return Key(kind, version.id, _canonical(options, plan), digests)


class AnswerCache:
    """The most recently used answers. Readers must not change them."""

    def __init__(self, entries: int) -> None:
        self._kept: LRUCache[Key[Any], BaseModel] = LRUCache(entries)

    def __contains__(self, key: Key[Any] | None) -> bool:
        return key is not None and key in self._kept

    def get(self, key: Key[Answer] | None) -> Answer | None:
        """The answer kept under a key, or None."""
        answer = None if key is None else self._kept.get(key)
        if answer is not None:
            metrics.cache_requests.labels("hit").inc()
        return cast("Answer | None", answer)

    def put(self, key: Key[Answer] | None, answer: Answer) -> None:
        """Keeps an answer that was a miss; the least recently used one makes room."""
        if key is not None and self._kept.maxsize:
            self._kept[key] = answer
            metrics.cache_requests.labels("miss").inc()
            metrics.cache_entries.set(len(self._kept))

    def clear(self) -> None:
        """Forgets everything."""
        self._kept.clear()
        metrics.cache_entries.set(0)


def _canonical(options: Options, plan: Plan) -> str:
    given = options.model_dump(exclude_none=True, exclude=_IMAGES | _PLANNED)
    return json.dumps([given, asdict(plan)], sort_keys=True)
