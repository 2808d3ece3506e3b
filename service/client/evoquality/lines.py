"""Lines of answers that take long, which arrive as they become ready (`Accept: application/x-ndjson`).

Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import Field

from evoquality.contract import ExactVotes, Message, Problem, RolloutResult, SwapResponse

R = TypeVar("R")

NDJSON = "application/x-ndjson"


class Line(Message, Generic[R]):
    """One result, or the problem that ended the answer, or neither: a sign of life while nothing is ready."""

    index: int | None = Field(default=None, description="Position of the prompt or pair in the request, from 0.")
    result: R | None = None
    version: str | None = Field(default=None, description="Of the weights that gave the result.")
    problem: Problem | None = None


RolloutLine = Line[RolloutResult]
ExactVotesLine = Line[ExactVotes]
SwapLine = Line[SwapResponse]
