"""What versions answer to the canary pictures: the same after every load as when they first served here."""

from __future__ import annotations

import logging
import math
from itertools import zip_longest

from pydantic import BaseModel

from evoquality.contract import VersionInfo
from service.concurrency import file_work
from service.engine.canary import ask_canaries, readable_share
from service.engine.protocol import Engine
from service.errors import ProblemError, VersionError
from service.prompts import PROFILES
from service.versions.store import VersionStore

_TOLERANCES = {"float32": 1e-3, "float16": 0.05}
_COARSE = 0.3
"""Of a log-probability; bfloat16 moves by up to this with the batch."""

log = logging.getLogger(__name__)


class Answer(BaseModel):
    """The likeliest answer to one canary picture."""

    token_ids: list[int]
    logprobs: list[float]


class Answers(BaseModel):
    """The answers of a version, and the arithmetic that gave them: another one may give others."""

    arithmetic: str
    answers: list[Answer]


class Canaries:
    """Asks the engine about the canary pictures after a load, and remembers each version's first answers."""

    def __init__(self, engine: Engine, store: VersionStore) -> None:
        self._engine = engine
        self._store = store
        self._first: dict[str, Answers] = {}

    async def ask(self, version: VersionInfo) -> float:
        """The share of readable answers. Raises VersionError (`changed_answers`) if they are not those of before."""
        profile = PROFILES[version.profile]
        samples = await ask_canaries(self._engine, profile)
        answers = [Answer(token_ids=sample.token_ids, logprobs=sample.logprobs) for sample in samples]
        now = Answers(arithmetic=self._engine.arithmetic, answers=answers)
        first = self._first.get(version.id) or await file_work(self._store.canaries, version.id, Answers)
        if first is None or first.arithmetic != now.arithmetic:
            await file_work(self._record, version.id, now)
            first = now
        if not _alike(first, now):
            raise VersionError("changed_answers", "the canaries are not answered as when this version first served")
        self._first[version.id] = first
        return readable_share(samples, profile)

    def _record(self, version: str, answers: Answers) -> None:
        try:
            self._store.record_canaries(version, answers)
        except (OSError, ProblemError) as failure:
            log.warning("what version %s answers to the canaries could not be recorded: %s", version, failure)


def _alike(first: Answers, now: Answers) -> bool:
    tolerance = _TOLERANCES.get(first.arithmetic.split()[0], _COARSE)
    return len(first.answers) == len(now.answers) and all(
        _same(one, other, tolerance) for one, other in zip(first.answers, now.answers, strict=True)
    )


def _same(first: Answer, now: Answer, tolerance: float) -> bool:
    """Compares token by token, up to a place where two tokens were equally likely."""
    steps = [zip(answer.token_ids, answer.logprobs, strict=False) for answer in (first, now)]
    for before, after in zip_longest(*steps):
        if before is None or after is None or not abs(before[1] - after[1]) <= tolerance:
            return False
        if before[0] != after[0]:
            return bool(before[1] <= math.log(0.5) + tolerance)
    return True
