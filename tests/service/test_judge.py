"""Scores and preferences out of sampled answers."""

from __future__ import annotations

import statistics

import pytest
from PIL import Image

from evoquality.contract import CompareOptions, RolloutPrompt, RolloutRequest, ScoreOptions
from service.engine.protocol import Prompt, Sampling
from service.errors import EngineFailure, InvalidRequest, UnknownAdapter, VersionConflict
from tests.service.conftest import World, opened

DARK, BRIGHT = (Image.new("RGB", (32, 32), (value,) * 3) for value in (50, 200))


def replies(*texts: str):
    return lambda prompt, sampling, index: texts[index % len(texts)]


def test_a_score_is_the_mean_of_the_readable_answers(world: World, run):
    world.engine.answer = replies("3.00", "4.50", "nonsense", "9")
    answer = run(world.service.judge.score(opened(DARK), ScoreOptions(samples=4)))
    assert answer.score == 3.75
    assert answer.std == pytest.approx(statistics.stdev([3.0, 4.5]))
    assert (answer.mode, answer.samples, answer.unreadable, answer.version) == ("sampled", 4, 0.5, world.first)


def test_no_score_is_invented_when_nothing_is_readable(world: World, run):
    world.engine.answer = replies("")
    answer = run(world.service.judge.score(opened(DARK), ScoreOptions(samples=3)))
    assert (answer.score, answer.std, answer.unreadable) == (None, None, 1)


def test_one_readable_answer_has_no_deviation(world: World, run):
    answer = run(world.service.judge.score(opened(DARK), ScoreOptions(samples=1)))
    assert answer.score is not None and answer.std is None


def test_both_orders_are_asked_and_votes_go_to_the_callers_images(world: World, run):
    answer = run(world.service.judge.compare(opened(DARK), opened(BRIGHT), CompareOptions(samples=8)))
    assert answer.preferred == "second"
    assert (answer.votes.first, answer.votes.second) == (0, 8)
    assert [order.shown_first for order in answer.orders] == ["first", "second"]
    assert [order.votes.second for order in answer.orders] == [4, 4]
    shown = [[image.getpixel((0, 0)) for image in prompt.images] for prompt, *_ in world.engine.asked]
    dark, bright = DARK.getpixel((0, 0)), BRIGHT.getpixel((0, 0))
    assert shown == [[dark, bright], [bright, dark]]


def test_position_bias_ends_in_a_tie(world: World, run):
    world.engine.answer = replies("0")
    answer = run(world.service.judge.compare(opened(DARK), opened(BRIGHT), CompareOptions(samples=8)))
    assert (answer.preferred, answer.votes.first, answer.votes.second) == ("tie", 4, 4)
    assert (answer.probability_first, answer.position_bias) == (0.5, 0.5)


def test_unreadable_votes_count_for_neither_side(world: World, run):
    world.engine.answer = replies("0", "?")
    answer = run(world.service.judge.compare(opened(DARK), opened(BRIGHT), CompareOptions(samples=4)))
    assert (answer.votes.first, answer.votes.second, answer.unreadable) == (1, 1, 0.5)
    world.engine.answer = replies("?")
    answer = run(world.service.judge.compare(opened(DARK), opened(BRIGHT), CompareOptions(samples=4, seed="random")))
    assert (answer.preferred, answer.unreadable) == (None, 1)


def test_a_seed_is_passed_on_and_each_order_has_its_own(make_world, run):
    world = make_world(cache_entries=0)
    for _ in range(2):
        run(world.service.judge.compare(opened(DARK), opened(BRIGHT), CompareOptions(seed=5)))
    seeds = [sampling.seed for _, sampling, *_ in world.engine.asked]
    assert seeds[:2] == seeds[2:]
    assert None not in seeds and seeds[0] != seeds[1]


def rollout(**changes) -> RolloutRequest:
    prompts = [
        RolloutPrompt(task="score", images=["a"], samples=2),
        RolloutPrompt(task="compare", images=["a", "b"], samples=1),
    ]
    return RolloutRequest(images={"a": "-", "b": "-"}, prompts=prompts, **changes)


def test_rollouts_answer_in_order_at_low_priority_with_log_probabilities(world: World, run):
    answer = run(world.service.rollouts.answer(rollout(), {"a": DARK, "b": BRIGHT}))
    assert [len(result.completions) for result in answer.results] == [2, 1]
    assert answer.results[1].completions[0].text == "1"
    assert answer.results[0].completions[0].logprobs == [-0.5]
    assert answer.version == world.first
    assert {priority for *_, priority in world.engine.asked} == {10}


def test_rollouts_refuse_another_version_an_unknown_adapter_and_images_that_do_not_fit(world: World, run):
    images = {"a": DARK, "b": BRIGHT}
    for request, shown, error in [
        (rollout(version=world.second), images, VersionConflict),
        (rollout(adapter="nobody"), images, UnknownAdapter),
        (rollout(), {"a": DARK}, InvalidRequest),
        (
            RolloutRequest(images={"a": "-"}, prompts=[RolloutPrompt(task="compare", images=["a"], samples=1)]),
            images,
            InvalidRequest,
        ),
        (
            RolloutRequest(
                images={"a": "-"}, prompts=[RolloutPrompt(task="score", images=["a"], samples=1, profile="loud")]
            ),
            images,
            InvalidRequest,
        ),
    ]:
        with pytest.raises(error):
            run(world.service.rollouts.answer(request, shown))
    assert world.engine.asked == []


def test_a_prompt_may_be_asked_in_another_format_than_the_versions(world: World, run):
    prompts = [RolloutPrompt(task="score", images=["a"], samples=1, profile=name) for name in (None, "evoquality")]
    run(world.service.rollouts.answer(RolloutRequest(images={"a": "-"}, prompts=prompts), {"a": DARK}))
    assert [prompt.profile.name for prompt, *_ in world.engine.asked] == ["plain", "evoquality"]


def test_an_answer_of_other_weights_is_no_answer(world: World, run):
    world.engine.version = world.second
    with pytest.raises(EngineFailure):
        run(world.service.judge.score(opened(DARK), ScoreOptions()))


def test_when_one_prompt_of_a_batch_fails_nothing_goes_on_behind_the_gate(world: World, run):
    def answer(prompt: Prompt, sampling: Sampling, index: int) -> str:
        raise EngineFailure("no")

    async def story() -> int:
        world.engine.seconds, world.engine.answer = 0.01, answer
        with pytest.raises(EngineFailure):
            await world.service.rollouts.answer(rollout(), {"a": DARK, "b": BRIGHT})
        return world.engine.running

    assert run(story()) == 0
