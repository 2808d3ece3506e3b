"""The mode `expected`: the model's own probabilities instead of sampled answers. It costs less, and varies less.

A model that thinks is asked in two parts: thoughts are sampled to where the answer begins, then the probabilities of
the answer behind each of them are read. Their mean estimates the same as sampled answers do, without the variance of
the answer behind its thought (the law of total variance).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL.Image import Image

from evoquality.contract import VersionInfo
from service.answers import MAX_SCORE, MIN_SCORE
from service.engine.protocol import END, SPACES, Begun, Engine, Prompt, only_from
from service.judging.estimates import ScoreEstimate, VoteEstimate, as_probability
from service.judging.plan import Draws
from service.judging.score_tree import LONGEST, SCORES, TOKENS, FloatArray, ScoreTree, behind_space
from service.judging.thoughts import Thought, Thoughts
from service.prompts import PROFILES, Profile

VOTES = ("0", "1")
_UNTHOUGHT = Thought("", ())


class Expected:
    """Estimates from the probabilities of an answer's tokens."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thoughts = Thoughts(engine)

    async def score(
        self, version: VersionInfo, image: Image, draws: Draws | None = None, texts: bool = False
    ) -> ScoreEstimate:
        """The expected score over the model's answers to `c_score`, with standard deviation and entropy.

        `draws`: the thoughts of a model that thinks. `texts`: whether they are given as `answers`.
        """
        prompt = Prompt("score", (image,), PROFILES[version.profile])
        thoughts = await self._think(version, prompt, draws, priority=0)
        trees = [(thought.tokens, ScoreTree()) for thought in thoughts if thought.tokens is not None]
        tokens = _with_spaces(TOKENS, prompt.profile)
        while asked := [(begun, tree, text) for begun, tree in trees for text in tree.unknown()]:
            beginnings: list[Begun] = [(begun, tree.lead + text) for begun, tree, text in asked]
            steps = LONGEST - min(len(text) for *_, text in asked) + (len(tokens) > len(TOKENS))
            paths = only_from(version.id, await self._engine.follow(prompt, beginnings, tokens, steps))
            for (_, tree, text), path in zip(asked, paths.steps, strict=True):
                tree.grow(text, path)
        probabilities = sum((tree.scores() for _, tree in trees), np.zeros(len(SCORES))) / len(thoughts)
        return _estimate(probabilities, _cut_off(thoughts), [thought.text for thought in thoughts] if texts else None)

    async def vote(
        self,
        version: VersionInfo,
        shown: tuple[Image, Image],
        draws: Draws | None = None,
        texts: bool = False,
        priority: int = 0,
    ) -> VoteEstimate:
        """The probabilities of "0" and "1" in one order of presentation. Otherwise as `score`."""
        prompt = Prompt("compare", shown, PROFILES[version.profile])
        thoughts = await self._think(version, prompt, draws, priority)
        beginnings: list[Begun] = [(thought.tokens, "") for thought in thoughts if thought.tokens is not None]
        first = second = 0.0
        if beginnings:
            tokens = _with_spaces((*VOTES, END), prompt.profile)
            steps = 1 + (len(tokens) > len(VOTES) + 1)
            followed = await self._engine.follow(prompt, beginnings, tokens, steps, priority=priority)
            answers = [behind_space(path, VOTES)[1][0] for path in only_from(version.id, followed).steps]
            first, second = (
                as_probability(sum(answer.probabilities[vote] for answer in answers) / len(thoughts)) for vote in VOTES
            )
        cut_off = _cut_off(thoughts)
        return VoteEstimate(
            first,
            second,
            as_probability(1 - first - second - cut_off),
            cut_off,
            [thought.text for thought in thoughts] if texts else None,
        )

    async def _think(
        self, version: VersionInfo, prompt: Prompt, draws: Draws | None, priority: int
    ) -> Sequence[Thought]:
        return [_UNTHOUGHT] if draws is None else await self._thoughts.sample(version, prompt, draws, priority)


def _with_spaces(tokens: tuple[str, ...], profile: Profile) -> tuple[str, ...]:
    """What to follow: an answer between an opening and a closing may have spaces around it."""
    return (*tokens, *SPACES) if profile.opening else tokens


def _cut_off(thoughts: Sequence[Thought]) -> float:
    return sum(thought.cut_off for thought in thoughts) / len(thoughts)


def _estimate(probabilities: FloatArray, cut_off: float = 0.0, answers: Sequence[str] | None = None) -> ScoreEstimate:
    """Mean, standard deviation and entropy from the (401,) probabilities of `SCORES`."""
    readable = float(probabilities.sum())
    unreadable = as_probability(1 - readable - cut_off)
    if readable <= 0:
        return ScoreEstimate(None, None, unreadable, {}, cut_off=cut_off, answers=answers)
    weights = probabilities / readable
    mean = min(MAX_SCORE, max(MIN_SCORE, float(weights @ SCORES)))
    std = min((MAX_SCORE - MIN_SCORE) / 2, math.sqrt(weights @ (SCORES - mean) ** 2))
    bars = np.clip(np.add.reduceat(weights, np.arange(0, len(SCORES), 10)), 0.0, 1.0)
    tenths = dict(zip(SCORES[::10].tolist(), bars.tolist(), strict=True))
    entropy = max(0.0, -float(bars[bars > 0] @ np.log(bars[bars > 0])))
    return ScoreEstimate(mean, std, unreadable, tenths, entropy, cut_off=cut_off, answers=answers)
