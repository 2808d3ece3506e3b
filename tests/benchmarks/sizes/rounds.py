"""What a round of 7B takes, by the paper's numbers and by this trainer's: counts, and floating-point operations.

The published 96 GPU hours (8 A100, about 12 h) over the operations of the paper's way give the share of the A100's
matrix peak at which they were done; the same share turns this trainer's operations into hours. Assumed: pictures of
448 px (256 visual tokens), answers of 6 tokens without thinking, both images of a pair trained on once in the paper's
way, every answer there with a prompt of its own (as public GRPO trainers do), here the engine's own sharing of prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.sizes.memory import SAMPLES
from tests.benchmarks.sizes.models import PUBLISHED
from tests.benchmarks.train.flops import Kind, Prefix, forward_flops, step_flops
from tests.benchmarks.train.ways import ANSWER, PROMPT, VISUAL_TOKENS
from trainer.pricing.price import counts
from trainer.settings.evolve import EvolveSettings

PAPER_HOURS = 8 * 12.0
PAPER_PAIRS, PAPER_VOTES, PAPER_SCORES = 20_000, 32, 32
A100_PEAK = 312e12
"""Dense bfloat16 FLOP/s of the maker's data sheet."""
GROUPS, ORIGINALS = 300, 10_000
_PATCHES = 4 * VISUAL_TOKENS
_COMPARE = PROMPT + VISUAL_TOKENS


@dataclass(frozen=True, slots=True)
class Round:
    """Of one round."""

    pairs: int
    votes: int
    trained: int
    """Pictures in all steps, one that comes twice counting twice."""
    rollouts: int
    flops: dict[str, float]
    """Of the votes, the rollouts and the updates."""


def paper() -> Round:
    """By the paper's numbers."""
    trained = 2 * PAPER_PAIRS
    asked = PAPER_PAIRS * _comparison(prompts=PAPER_VOTES)
    sampled = trained * _forward("repeated")
    updates = trained * step_flops(PUBLISHED["7B"], "full", "repeated", **_shape())
    flops = {"votes": asked, "rollouts": sampled, "updates": updates}
    return Round(PAPER_PAIRS, PAPER_PAIRS * PAPER_VOTES, trained, trained * PAPER_SCORES, flops)


def with_the_papers_counts(kind: Kind) -> Round:
    """As many pairs and pictures as the paper, in this trainer's way: exact votes, prompts shared."""
    return _shared(kind, PAPER_PAIRS, 2 * PAPER_PAIRS, looked_at=0)


def ours(kind: Kind) -> Round:
    """By this trainer's counts, for about as many pairs: in groups a picture serves eleven of them."""
    settings = EvolveSettings(pool=Path(), run=Path(), samples=SAMPLES, groups=GROUPS)
    found = counts(settings, ORIGINALS, True, exact=True)
    return _shared(kind, found.pairs, found.rollouts // SAMPLES, looked_at=found.gate_answers // SAMPLES)


def _shared(kind: Kind, pairs: int, trained: int, *, looked_at: int) -> Round:
    flops = {
        "votes": pairs * _comparison(prompts=2),
        "rollouts": (trained + looked_at) * _forward("shared"),
        "updates": trained * step_flops(PUBLISHED["7B"], kind, "shared", **_shape()),
    }
    return Round(pairs, 2 * pairs, trained, trained * SAMPLES, flops)


def achieved() -> float:
    """Share of the A100's peak that the paper's hours amount to."""
    return sum(paper().flops.values()) / (PAPER_HOURS * 3600 * A100_PEAK)


def hours(of: Round) -> float:
    """A100 hours, at the paper's share of the peak."""
    return sum(of.flops.values()) / (achieved() * A100_PEAK * 3600)


def _shape() -> dict[str, int]:
    return {"patches": _PATCHES, "prompt": PROMPT, "samples": SAMPLES, "answer": ANSWER}


def _forward(prefix: Prefix) -> float:
    once = forward_flops(PUBLISHED["7B"], prefix, **_shape())
    return once.all_vision + once.all_language


def _comparison(*, prompts: int) -> float:
    """Of so many prompts about a pair, each with an answer of a token; the engine keeps a picture's encoding."""
    one = forward_flops(PUBLISHED["7B"], "repeated", patches=_PATCHES, prompt=_COMPARE, samples=1, answer=1)
    return 2 * one.all_vision + prompts * one.all_language
