"""Reads scores and votes from a model's text. An unreadable answer is None, never an invented number.

Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from service.prompts import Profile

MIN_SCORE, MAX_SCORE = 1.0, 5.0


def parse_score(text: str, profile: Profile) -> float | None:
    """The score from 1 to 5 in an answer to `c_score`, or None if it is unreadable."""
    answer = _answer(text, profile)
    if answer is None or not re.fullmatch(r"[0-9]+(\.[0-9]+)?", answer):
        return None
    score = float(answer)
    return score if MIN_SCORE <= score <= MAX_SCORE else None


def read_scores(texts: Iterable[str], profile: Profile) -> list[float]:
    """The scores of the readable answers."""
    scores = (parse_score(text, profile) for text in texts)
    return [score for score in scores if score is not None]


def parse_vote(text: str, profile: Profile) -> int | None:
    """0 if `text` prefers the image shown first, 1 the second, None if it is unreadable."""
    answer = _answer(text, profile)
    return int(answer) if answer in {"0", "1"} else None


def _answer(text: str, profile: Profile) -> str | None:
    """The last answer after the reasoning, as the profile marks it."""
    found = re.findall(profile.answer, text.rpartition("</think>")[2], flags=re.DOTALL)
    return found[-1] if found else None
