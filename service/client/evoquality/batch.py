"""Batches, of which only those items are asked again whose answers were lost.

Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import httpx

from evoquality import calls
from evoquality.calls import Call, ImageSource
from evoquality.contract import (
    MAX_BATCH,
    ExactVotes,
    ExactVotesRequest,
    Problem,
    RolloutRequest,
    RolloutResult,
    ScoreBatchItem,
    ScoreBatchResponse,
    ScoreOptions,
)
from evoquality.lines import Line
from evoquality.retries import Lost, ServiceError

R = TypeVar("R")

_LOST = {503, 504}
_VERSIONS = 4


class Batch:
    """Any number of images to score, asked in requests of up to 64."""

    def __init__(self, images: Sequence[ImageSource], options: ScoreOptions | None) -> None:
        self._images = images
        self._options = options
        self._left = list(range(len(images)))
        self._asked: list[int] = []
        self._lost: dict[int, ScoreBatchItem] = {}
        self._found: dict[int, ScoreBatchItem] = {}
        self._answer: ScoreBatchResponse | None = None
        self._versions = 0

    def __bool__(self) -> bool:
        """True while images have no answer."""
        return bool(self._left)

    def call(self) -> Call[ScoreBatchResponse]:
        """The next request."""
        self._asked, self._lost = self._left[:MAX_BATCH], {}
        return calls.score_batch([self._images[index] for index in self._asked], self._options)

    def take(self, item: ScoreBatchItem) -> list[ScoreBatchItem]:
        """The item with its position among all images, or nothing if its answer was lost."""
        index = self._asked[item.index]
        item = item.model_copy(update={"index": index})
        if item.problem and item.problem.status in _LOST:
            self._lost[index] = item
            return []
        self._left.remove(index)
        return [item]

    def check(self) -> None:
        """Raises what a retry waits for if the last request left images without an answer."""
        if self._lost:
            problem = next(iter(self._lost.values())).problem
            assert problem
            raise Lost(problem)
        if set(self._asked) & set(self._left):
            raise httpx.RemoteProtocolError("The service ended its answer early.")

    def given_up(self) -> list[ScoreBatchItem]:
        """The lost items with their problems, after all retries."""
        items, self._lost = list(self._lost.values()), {}
        self._left = [index for index in self._left if index not in {item.index for item in items}]
        return items

    def take_all(self, answer: ScoreBatchResponse) -> None:
        """Takes a request's items. If the version has changed, all images are asked again: no answer mixes two.

        Raises as `check`; ServiceError if the version changes again and again.
        """
        if self._answer and answer.version != self._answer.version:
            self._left, self._versions = sorted({*self._left, *self._found}), self._versions + 1
            self._found.clear()
            if self._versions > _VERSIONS:
                raise ServiceError(_mixed(answer.version))
        self._answer = answer
        self.keep([item for given in answer.results for item in self.take(given)])
        self.check()

    def keep(self, items: Sequence[ScoreBatchItem]) -> None:
        """Keeps items for the whole answer."""
        self._found |= {item.index: item for item in items}

    def answer(self) -> ScoreBatchResponse | None:
        """One answer to all images, in their order; None if there were none."""
        results = [self._found[index] for index in sorted(self._found)]
        return self._answer and self._answer.model_copy(update={"results": results})


class LongBatch(Generic[R]):
    """A batch that is answered line by line; `ask` makes the request for the items at some positions."""

    def __init__(self, size: int, ask: Callable[[list[int]], Call[Any]]) -> None:
        self._size = size
        self._ask = ask
        self._asked: list[int] = []
        self._found: dict[int, R] = {}
        self.version = ""
        """Of the weights that gave all results."""

    def call(self) -> Call[Any]:
        """The request for what has no result yet."""
        self._asked = [index for index in range(self._size) if index not in self._found]
        return self._ask(self._asked)

    def take(self, line: Line[R]) -> None:
        """Keeps a result; forgets those of other weights. Raises ServiceError for the problem that ended the answer."""
        if line.problem:
            raise ServiceError(line.problem)
        if line.index is not None and line.result is not None:
            if line.version != self.version:
                self._found.clear()
            self.version = line.version or ""
            self._found[self._asked[line.index]] = line.result

    def results(self) -> list[R]:
        """All results. Raises what a retry waits for if some are missing."""
        if len(self._found) < self._size:
            raise httpx.RemoteProtocolError("The service ended its answer early.")
        return [self._found[index] for index in range(self._size)]


def rollouts_of(request: RolloutRequest) -> LongBatch[RolloutResult]:
    """The prompts of a request."""

    def ask(indices: list[int]) -> Call[Any]:
        prompts = [request.prompts[index] for index in indices]
        shown = {name for prompt in prompts for name in prompt.images}
        images = {name: image for name, image in request.images.items() if name in shown}
        return calls.rollouts(request.model_copy(update={"prompts": prompts, "images": images}))

    return LongBatch(len(request.prompts), ask)


def exact_votes_of(request: ExactVotesRequest) -> LongBatch[ExactVotes]:
    """The pairs of a request."""

    def ask(indices: list[int]) -> Call[Any]:
        pairs = [request.pairs[index] for index in indices]
        shown = {name for pair in pairs for name in pair}
        images = {name: image for name, image in request.images.items() if name in shown}
        return calls.exact_votes(request.model_copy(update={"pairs": pairs, "images": images}))

    return LongBatch(len(request.pairs), ask)


def _mixed(version: str) -> Problem:
    return Problem(
        title="Versions change",
        status=409,
        detail="The images were scored by different versions. Ask again when all replicas serve the same one.",
        instance="/v1/score/batch",
        code="version_conflict",
        request_id="",
    )
