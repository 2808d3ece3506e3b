"""The trainer's voters against the service's routes: how a model is asked by its profile, when it stops, resuming."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from evoquality import ServiceError
from service.engine.protocol import Generation, Prompt, Sampling
from service.errors import EngineFailure, NotSpelled
from service.prompts import PROFILES
from tests.benchmarks.scale import in_flight
from tests.service.conftest import KEY, Listening, listening, make_listening, make_world, picture, stocked
from trainer.errors import Unreachable, WrongVersion
from trainer.pool.pool import Pool, PoolImage, content_id
from trainer.settings.evolve import EvolveSettings
from trainer.voting.thoughts import ThoughtVoter
from trainer.voting.voters import ExactVoter, SampledVoter, Voter, cast, choose_voter
from trainer.voting.votes import Pair, PairVotes, labels_of, load
from trainer.workers.spread import AsyncWorkers

__all__ = ["listening", "make_listening", "make_world", "stocked"]

FILES = {content_id(picture(level)): picture(level) for level in (20, 90, 160, 255)}
"""From dark to bright."""
PAIRS = list(combinations(FILES, 2))
ANSWERS = {"plain": "{}", "evoquality": r"<think>0, or 1?</think> \boxed{{{}}}"}
ANSWERS["visualquality-r1"] = "<think>The first, <answer>0</answer>.</think> <answer>{}</answer>"


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    for name, file in FILES.items():
        (tmp_path / name).write_bytes(file)
    return Pool([PoolImage(name, str(tmp_path / name), name) for name in FILES])


def brighter(profile: str, certainty: float = 1.0) -> Callable[[Prompt, Sampling, int], str]:
    """Answers for the brighter picture with a probability, otherwise for the other; the seed decides."""

    def answer(prompt: Prompt, sampling: Sampling, index: int) -> str:
        first, second = (image.getpixel((0, 0))[0] for image in prompt.images)
        draw = np.random.default_rng(((sampling.seed or 0) + index, first, second)).random()
        return ANSWERS[profile].format(int((second > first) == (draw < certainty)))

    return answer


T = TypeVar("T")
Ask = Callable[[AsyncWorkers], Voter]


def with_workers(service: Listening, use: Callable[[AsyncWorkers], Awaitable[T]], patience: float = 5) -> T:
    """The result of `use` with the service as the only replica."""

    async def story() -> T:
        workers = AsyncWorkers([service.operator_url], KEY, service.world.store, patience, print)
        try:
            return await use(workers)
        finally:
            await workers.close()

    return asyncio.run(story())


def vote(
    service: Listening, ask: Ask, file: Path, pairs: Sequence[Pair] = PAIRS, patience: float = 5
) -> list[PairVotes]:
    return with_workers(service, lambda workers: cast(pairs, ask(workers), file, advance=lambda _: None), patience)


def exact(service: Listening, pool: Pool, **changes: Any) -> Ask:
    return lambda workers: ExactVoter(pool, workers, service.world.first, **changes)


def sampled(
    service: Listening, pool: Pool, profile: str = "plain", votes: int = 32, error: float | None = 0.0, **changes: Any
) -> Ask:
    version = service.world.first
    return lambda workers: SampledVoter(pool, workers, version, PROFILES[profile], votes, error, 1.0, 3, **changes)


def draws(service: Listening) -> dict[tuple[int, ...], list[int]]:
    """The seeds of every answer by the pictures shown, in order; forgets them."""
    found: dict[tuple[int, ...], list[int]] = {}
    for prompt, sampling, *_ in service.world.engine.asked:
        shown = tuple(image.getpixel((0, 0))[0] for image in prompt.images)
        found.setdefault(shown, []).extend((sampling.seed or 0) + index for index in range(sampling.n))
    service.world.engine.asked.clear()
    return found


def chosen(service: Listening, pool: Pool, profile: str, **settings: Any) -> Voter:
    folder = Path(pool.images[0].path).parent
    made = EvolveSettings(pool=folder, run=folder, **settings)
    asked = {"version": service.world.first, "profile": PROFILES[profile], "seed": 0, "pairs": PAIRS}
    return with_workers(service, lambda workers: choose_voter(made, pool, workers, **asked))


@pytest.mark.parametrize("profile", PROFILES)
def test_a_model_is_asked_exactly_if_it_can_and_its_answers_are_read_as_its_profile_says(
    make_listening, pool: Pool, tmp_path: Path, profile: str
) -> None:
    service = make_listening(profile=profile)
    service.world.engine.answer = brighter(profile)
    voter = chosen(service, pool, profile)
    assert isinstance(voter, ThoughtVoter if PROFILES[profile].thinks else ExactVoter)
    votes = vote(service, sampled(service, pool, profile, error=0.05), tmp_path / "votes.jsonl")
    assert {(one.first, one.second): one.label for one in votes} == dict.fromkeys(PAIRS, 0.0)
    assert all(one.by == "samples" and one.unreadable == 0 for one in votes)


def test_votes_by_names_the_way_whatever_the_model_can(listening: Listening, pool: Pool) -> None:
    assert isinstance(chosen(listening, pool, "plain", votes_by="samples"), SampledVoter)
    assert isinstance(chosen(listening, pool, "plain", votes_by="exact"), ExactVoter)


def test_exact_votes_that_a_model_does_not_have_are_an_error_that_says_what_to_do(
    listening: Listening, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def follow(*_: Any, **__: Any) -> None:
        raise NotSpelled("mode=expected needs a tokenizer with one token per digit; use mode=sampled.")

    monkeypatch.setattr(listening.world.engine, "follow", follow)
    with pytest.raises(ServiceError, match=r"no_exact_votes: .*vote by samples"):
        vote(listening, exact(listening, pool), tmp_path / "votes.jsonl")
    assert isinstance(chosen(listening, pool, "plain"), SampledVoter)


def test_exact_votes_are_probabilities_and_what_is_missing_to_one_in_each_order(
    listening: Listening, pool: Pool, tmp_path: Path
) -> None:
    votes = vote(listening, exact(listening, pool), tmp_path / "votes.jsonl")
    assert {(one.first, one.second) for one in votes} == set(PAIRS)
    for one in votes:
        assert (one.by, one.label, one.asked) == ("exact", 0.0, 2)
        assert sum(one.forward) + sum(one.backward) + one.unreadable == pytest.approx(2)


@pytest.mark.parametrize("certainty", [0.6, 0.9])
def test_votes_that_stop_are_the_first_ones_of_the_full_vote_and_as_many_in_each_order(
    listening: Listening, pool: Pool, tmp_path: Path, certainty: float
) -> None:
    listening.world.engine.answer = brighter("plain", certainty)
    stopped = vote(listening, sampled(listening, pool, error=0.05), tmp_path / "stopped.jsonl")
    drawn = draws(listening)
    full = vote(listening, sampled(listening, pool), tmp_path / "full.jsonl")
    needed = {(one.first, one.second): one.asked for one in full}
    for one in stopped:
        assert sum(one.forward) == sum(one.backward) == one.asked / 2
        assert one.asked <= needed[one.first, one.second]
    for shown, seeds in draws(listening).items():
        assert seeds == list(range(seeds[0], seeds[0] + len(seeds)))
        assert seeds[: len(drawn[shown])] == drawn[shown]


def test_a_single_vote_is_asked_in_an_order_that_is_drawn(listening: Listening, pool: Pool, tmp_path: Path) -> None:
    found = vote(listening, sampled(listening, pool, votes=1), tmp_path / "votes.jsonl")
    assert [one.asked for one in found] == [1] * len(PAIRS)
    assert {sum(one.forward) - sum(one.backward) for one in found} == {1, -1}


def test_for_soft_labels_all_votes_are_cast_though_the_majority_is_known(
    listening: Listening, pool: Pool, tmp_path: Path
) -> None:
    made = chosen(listening, pool, "plain", votes_by="samples", votes=9, labels="soft")
    assert isinstance(made, SampledVoter)
    assert made.error is None
    listening.world.engine.answer = brighter("plain", 0.9)
    found = vote(listening, sampled(listening, pool, votes=9, error=made.error), tmp_path / "votes.jsonl")
    assert [one.asked for one in found] == [9] * len(PAIRS)


def test_three_votes_are_two_where_those_decide(listening: Listening, pool: Pool, tmp_path: Path) -> None:
    listening.world.engine.answer = brighter("plain", 0.5)
    for one in vote(listening, sampled(listening, pool, votes=3), tmp_path / "votes.jsonl"):
        assert one.asked == (2 if {one.first_votes, one.second_votes} == {2, 0} else 3)
        assert abs(sum(one.forward) - sum(one.backward)) == one.asked % 2


@pytest.mark.parametrize("way", [exact, sampled])
def test_without_permutation_a_pair_is_judged_in_one_order_alone(
    listening: Listening, pool: Pool, tmp_path: Path, way: Callable[..., Ask]
) -> None:
    for one in vote(listening, way(listening, pool, permute=False), tmp_path / "votes.jsonl"):
        assert one.backward == [0, 0]
        assert sum(one.forward) + one.unreadable == pytest.approx(one.asked) and one.label == 0.0


def test_without_an_allowed_error_the_labels_are_those_of_all_votes(
    listening: Listening, pool: Pool, tmp_path: Path
) -> None:
    listening.world.engine.answer = brighter("plain", 0.7)
    curtailed = vote(listening, sampled(listening, pool), tmp_path / "curtailed.jsonl")
    for one in curtailed:
        decided_early = one.asked < 32
        assert not decided_early or max(one.first_votes, one.second_votes) > 16


def test_a_killed_stage_asks_what_is_missing_and_ends_in_the_same_votes(
    listening: Listening, pool: Pool, tmp_path: Path
) -> None:
    listening.world.engine.answer = brighter("plain", 0.7)
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    expected = vote(listening, sampled(listening, pool, error=0.05), whole)
    lines = whole.read_text().splitlines(keepends=True)
    killed.write_text("".join(lines[:2]) + lines[2][:20])
    asked = len(listening.world.engine.asked)
    resumed = vote(listening, sampled(listening, pool, error=0.05), killed)
    assert len(listening.world.engine.asked) < 2 * asked
    key = PairVotes.__repr__
    assert sorted(resumed, key=key) == sorted(expected, key=key)
    assert labels_of(resumed) == labels_of(expected)


def test_no_pair_waits_for_another_and_what_was_cast_before_a_failure_is_kept(
    listening: Listening, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, slow = tmp_path / "votes.jsonl", PAIRS[0]
    generate = listening.world.engine.generate

    async def generate_slowly(prompt: Prompt, sampling: Sampling, **more: Any) -> Generation:
        if {image.getpixel((0, 0))[0] for image in prompt.images} == {20, 90}:
            while len(load(file)) < len(PAIRS) - 1:
                await asyncio.sleep(0.01)
            raise EngineFailure("no")
        return await generate(prompt, sampling, **more)

    monkeypatch.setattr(listening.world.engine, "generate", generate_slowly)
    listening.world.engine.answer = brighter("plain", 0.7)
    with pytest.raises(Unreachable, match="engine_failure"):
        vote(listening, sampled(listening, pool), file, patience=0)
    assert {(one.first, one.second) for one in load(file)} == {*PAIRS} - {slow}
    monkeypatch.undo()
    listening.world.engine.answer = brighter("plain", 0.7)
    resumed = vote(listening, sampled(listening, pool), file)
    whole = vote(listening, sampled(listening, pool), tmp_path / "whole.jsonl")
    assert sorted(resumed, key=repr) == sorted(whole, key=repr)


# Thoughts


def thinking(service: Listening, pool: Pool, votes: int = 32, error: float | None = 0.06, **changes: Any) -> Ask:
    version = service.world.first
    return lambda workers: ThoughtVoter(pool, workers, version, votes, error, 1.0, 3, **changes)


def wavering(prompt: Prompt, sampling: Sampling, index: int) -> str:
    """Thoughts that differ by their number; three in four are for the brighter picture, one in eight has no answer."""
    number = (sampling.seed or 0) + index
    first, second = (image.getpixel((0, 0))[0] for image in prompt.images)
    better = int((second > first) == (number % 4 != 3))
    return f"<think>{number}</think>" + ("" if number % 8 == 0 else rf" \boxed{{{better}}}")


@pytest.fixture
def thoughtful(make_listening: Callable[..., Listening]) -> Listening:
    service = make_listening(profile="evoquality")
    service.world.engine.answer = wavering
    return service


def test_thoughts_are_drawn_in_both_orders_until_the_label_is_decided(
    thoughtful: Listening, pool: Pool, tmp_path: Path
) -> None:
    stopped = vote(thoughtful, thinking(thoughtful, pool), tmp_path / "stopped.jsonl")
    full = vote(thoughtful, thinking(thoughtful, pool, error=None), tmp_path / "full.jsonl")
    assert [one.asked for one in full] == [32] * len(PAIRS)
    assert all(one.asked % 2 == 0 and one.by == "thoughts" for one in stopped)
    assert sum(one.asked for one in stopped) < sum(one.asked for one in full)
    for one in full:
        assert one.unreadable == pytest.approx(4, abs=0.5)
        assert one.share == pytest.approx(0.25 if one.label == 0 else 0.75, abs=0.15)


def test_a_killed_stage_of_thoughts_ends_in_the_same_votes(thoughtful: Listening, pool: Pool, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    expected = vote(thoughtful, thinking(thoughtful, pool), whole)
    killed.write_text("".join(whole.read_text().splitlines(keepends=True)[:2]))
    resumed = vote(thoughtful, thinking(thoughtful, pool), killed)
    assert sorted(resumed, key=PairVotes.__repr__) == sorted(expected, key=PairVotes.__repr__)


def test_what_a_thought_is_worth_is_measured_before_the_votes(thoughtful: Listening, pool: Pool) -> None:
    wavers = chosen(thoughtful, pool, "evoquality")
    assert isinstance(wavers, ThoughtVoter)
    thoughtful.world.engine.answer = lambda *asked: f"<think>{asked[1].seed}</think> " + r"\boxed{0}"
    always_the_first = chosen(thoughtful, pool, "evoquality")
    assert isinstance(always_the_first, ThoughtVoter)
    assert 1 <= wavers.known.worth < always_the_first.known.worth, "an even preference that never varies is sure"


def test_thoughts_that_the_limit_ends_are_counted_apart(thoughtful: Listening, pool: Pool, tmp_path: Path) -> None:
    async def story(voter: Ask, file: Path) -> list[PairVotes]:
        store = thoughtful.world.store
        workers = AsyncWorkers([thoughtful.operator_url], KEY, store, 5, print, max_answer_tokens=8)
        try:
            return await cast(PAIRS[:1], voter(workers), file, advance=lambda _: None)
        finally:
            await workers.close()

    ways = thinking(thoughtful, pool, votes=4), sampled(thoughtful, pool, "evoquality", votes=4)
    for number, way in enumerate(ways):
        [one] = asyncio.run(story(way, tmp_path / f"{number}.jsonl"))
        assert (one.cut_off, one.unreadable, one.asked, one.label) == (4, 0, 4, None)


@pytest.mark.parametrize(("kind", "pairs"), [("samples", 160), ("thoughts", 80)])
def test_votes_keep_an_engine_full_however_unlike_the_lengths_of_its_thoughts(kind: in_flight.Kind, pairs: int) -> None:
    assert in_flight.simulated(kind, places=8, pairs=pairs) >= 0.9


@pytest.mark.parametrize("way", [exact, sampled])
def test_a_version_that_was_replaced_ends_the_stage(
    listening: Listening, pool: Pool, tmp_path: Path, way: Callable[[Listening, Pool], Ask]
) -> None:
    promotion = listening.operators.post(f"/internal/versions/{listening.world.second}/promote")
    promotion.raise_for_status()
    with pytest.raises(WrongVersion):
        vote(listening, way(listening, pool), tmp_path / "votes.jsonl")
