"""How a batch becomes requests: no more than an engine takes at a time, and answers that take long one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, groupby
from typing import TypeVar

from evoquality.contract import InfoResponse, RolloutPrompt, RolloutResult, Task
from service.prompts import MAX_ANSWER_TOKENS, PROFILES, max_tokens

T = TypeVar("T")

MAX_IMAGE_BYTES = 48 * 2**20
"""Limit of the image files that a request carries: two of the largest. The service refuses bodies beyond its
`max_operator_bytes`, 256 MiB by default."""
_TOGETHER_TOKENS = 512
"""Answers to one prompt end together if they are shorter than this in all; longer ones are asked as prompts of their
own, so that each frees its place in the engine as soon as it ends."""
_REQUEST_TOKENS = 16_384
"""Of all answers of a request: so much is at most in doubt when a connection breaks."""
_SEEDS = 2**31


def answer_tokens(info: InfoResponse, task: Task, limit: int | None) -> int:
    """The longest answer, in tokens, of the model that a replica serves; `limit` is that of a thinking one's, thought
    included."""
    return max_tokens(task, PROFILES[info.profile], limit or info.max_answer_tokens or MAX_ANSWER_TOKENS)


def pieces(prompts: Sequence[RolloutPrompt], tokens: Mapping[Task, int]) -> list[tuple[int, RolloutPrompt]]:
    """The prompts, those with long answers in pieces of fewer samples, each with its prompt's position.

    Sample i of a prompt uses its seed + i, also in pieces.
    """
    found = []
    for index, prompt in enumerate(prompts):
        size = max(1, _TOGETHER_TOKENS // tokens[prompt.task])
        for start in range(0, prompt.samples, size):
            seed = None if prompt.seed is None else (prompt.seed + start) % _SEEDS
            changed = {"samples": min(size, prompt.samples - start), "seed": seed}
            found.append((index, prompt.model_copy(update=changed)))
    return found


def joined(asked: Sequence[tuple[int, RolloutPrompt]], found: Mapping[int, RolloutResult]) -> list[RolloutResult]:
    """The results of the prompts, as if none had been asked in `pieces`; `found` are those of the pieces."""
    by_prompt: dict[int, list[RolloutResult]] = {}
    for place, (index, _) in enumerate(asked):
        by_prompt.setdefault(index, []).append(found[place])
    return [
        first.model_copy(update={"completions": [answer for one in (first, *rest) for answer in one.completions]})
        for first, *rest in by_prompt.values()
    ]


def parts(sequences: Sequence[int], tokens: int, engine: int, replicas: int) -> list[list[int]]:
    """The positions of a batch's items in requests, in order. Each request holds as many sequences as an `engine`
    samples at the same time, no more than its share among the replicas, and no more tokens than are put at risk."""
    share = -(-sum(sequences) // replicas)
    most = min(share, engine, _REQUEST_TOKENS // tokens)
    before = list(accumulate(sequences, initial=0))
    return [list(part) for _, part in groupby(range(len(sequences)), key=lambda index: before[index] // max(1, most))]


def fitting(items: Sequence[T], shown: Sequence[Iterable[str]], sizes: Mapping[str, int]) -> Sequence[T]:
    """The first items, at least one, whose images (`shown`) fit into a request; `sizes` are those of their files, 0 for
    those that need not be sent."""
    carried: set[str] = set()
    size = 0
    for count, images in enumerate(shown):
        more = set(images) - carried
        size += sum(sizes[image] for image in more)
        if count and size > MAX_IMAGE_BYTES:
            return items[:count]
        carried |= more
    return items
