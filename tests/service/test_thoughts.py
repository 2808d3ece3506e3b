"""Expected answers behind thoughts, and what is repeatable of answers that are sampled."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
from PIL import Image

from evoquality.contract import CompareOptions, RankOptions, ScoreOptions
from service.engine.protocol import Prompt, Sampling, Step
from service.errors import InvalidRequest
from service.judging.score_tree import TOKENS, ScoreTree, behind_space
from service.prompts import PROFILES
from service.ranking.rank import rank
from tests.service.conftest import World, opened, picture

FORMATS = {"evoquality": r"<think>{}</think> \boxed{{{}}}", "visualquality-r1": "<think>{}</think><answer>{}</answer>"}
THINKING = list(FORMATS)
MENTIONS = {"evoquality": r"It goes into \boxed{}.", "visualquality-r1": "It goes into <answer> </answer>."}
GREY, BRIGHT = (Image.new("RGB", (32, 32), (value,) * 3) for value in (128, 200))

Answer = Callable[[Prompt, Sampling, int], str]


def says(profile: str, *answers: str, thought: str = "Well,") -> Answer:
    """Thoughts that differ by their number, and end in the answers in turn."""

    def answer(prompt: Prompt, sampling: Sampling, index: int) -> str:
        return FORMATS[profile].format(f"{thought} {index} {sampling.seed}", answers[index % len(answers)])

    return answer


@pytest.fixture(params=THINKING)
def thinking(request: pytest.FixtureRequest, make_world: Callable[..., World]) -> tuple[World, str]:
    return make_world(profile=request.param), request.param


def score(world: World, run, **options: Any):
    return run(world.service.judge.score(opened(GREY), ScoreOptions(**options)))


def test_a_score_is_the_mean_of_the_expectations_behind_the_thoughts(thinking: tuple[World, str], run):
    world, profile = thinking
    world.engine.answer = says(profile, "3.00", "4.50", "2.00", "4.50")
    answer = score(world, run)
    assert (answer.mode, answer.thoughts, answer.samples) == ("expected", 4, None)
    world.engine.answer = says(profile, "3.00")
    alone = [score(world, run, thoughts=1, seed=1).score]
    for one in ("4.50", "2.00", "4.50"):
        world.engine.answer = says(profile, one)
        alone.append(score(world, run, thoughts=1, seed=len(alone) + 1).score)
    assert answer.score == pytest.approx(statistics.fmean(alone), abs=1e-3)
    assert answer.score == pytest.approx(3.5, abs=0.05)
    assert answer.unreadable < 0.1 and answer.cut_off == 0


def test_nothing_is_sampled_behind_the_opening_of_an_answer(thinking: tuple[World, str], run):
    world, profile = thinking
    world.engine.answer = says(profile, "4.20")
    answer = score(world, run, reasoning=True, thoughts=2)
    assert len(answer.answers) == 2
    assert all(text.endswith(PROFILES[profile].opening) for text in answer.answers)


@pytest.mark.parametrize("said", ["4.20", " 4.20 ", "\n4.20\n", "4.2", "4"])
def test_an_answer_may_have_spaces_around_it_and_fewer_digits(thinking: tuple[World, str], run, said: str):
    world, profile = thinking
    world.engine.answer = says(profile, said)
    answer = score(world, run, thoughts=2)
    assert answer.score == pytest.approx(float(said), abs=0.06)
    assert answer.unreadable < 0.1


def test_an_opening_that_a_thought_only_mentions_is_not_its_answer(thinking: tuple[World, str], run):
    world, profile = thinking
    world.engine.answer = says(profile, "4.20", thought=MENTIONS[profile])
    answer = score(world, run, reasoning=True)
    assert answer.score == pytest.approx(4.2, abs=0.05)
    assert all(PROFILES[profile].opening in text.partition("</think>")[0] for text in answer.answers)
    seeds = [sampling.seed for _, sampling, *_ in world.engine.asked if sampling.stop]
    assert len(seeds) == len(set(seeds)) == 5, "what goes on has noise of its own"


def test_an_answer_without_a_thought_is_read(thinking: tuple[World, str], run):
    world, profile = thinking
    world.engine.answer = lambda *_: FORMATS[profile].partition("</think>")[2].format("4.20")
    assert score(world, run).score == pytest.approx(4.2, abs=0.05)


def test_thoughts_without_an_answer_are_unreadable_and_those_cut_off_are_counted_apart(
    make_world: Callable[..., World], run
):
    world = make_world(profile="evoquality")
    answers = says("evoquality", "4.20")
    silent, endless = "<think>Hm.</think> Good.", "<think>" + "Hm. " * 400
    world.engine.answer = lambda *asked: [answers(*asked), answers(*asked), silent, endless][asked[2] % 4]
    for options in ({}, {"mode": "sampled", "samples": 4}):
        answer = score(world, run, **options)
        assert answer.cut_off == 0.25
        assert answer.unreadable == pytest.approx(0.25, abs=0.03)
        assert answer.score == pytest.approx(4.2, abs=0.05)
    compared = run(world.service.judge.compare(opened(GREY), opened(BRIGHT), CompareOptions(samples=8)))
    assert (compared.cut_off, compared.orders[0].cut_off) == (0.25, 0.25)
    assert compared.unreadable == 0.75, "4.20 is no vote"


def test_what_the_limit_cut_off_is_a_metric_of_its_own(make_world: Callable[..., World], run):
    world = make_world(profile="evoquality")
    world.engine.answer = lambda *_: "<think>" + "Hm. " * 400
    before = counted(world, run)
    assert score(world, run, thoughts=3).score is None
    assert counted(world, run) == [before[0], before[1] + 3]


def counted(world: World, run) -> list[float]:
    async def story() -> str:
        async with world.operators() as client:
            return (await client.get("/metrics")).text

    lines = dict(line.rsplit(" ", 1) for line in run(story()).splitlines() if line.startswith("iqa_"))
    names = ("iqa_unreadable_answers_total", "iqa_cut_off_answers_total")
    return [float(lines.get(f'{name}{{task="score"}}', 0)) for name in names]


def test_a_preference_is_the_mean_of_the_probabilities_in_both_orders(thinking: tuple[World, str], run):
    world, profile = thinking
    world.engine.answer = says(profile, "0", " 0 ", "1", "0")
    answer = run(world.service.judge.compare(opened(GREY), opened(BRIGHT), CompareOptions(thoughts=8)))
    assert (answer.thoughts, answer.samples, answer.votes) == (8, None, None)
    assert answer.probability_first == pytest.approx(0.5) and answer.position_bias == pytest.approx(0.25, abs=0.01)
    assert [order.probability_first for order in answer.orders] == pytest.approx([0.75, 0.25], abs=0.01)


def test_a_ranking_of_a_model_that_thinks_is_expected_too(thinking: tuple[World, str], run):
    world, profile = thinking

    def answer(prompt: Prompt, sampling: Sampling, index: int) -> str:
        first, second = (image.getpixel((0, 0))[0] for image in prompt.images)
        return FORMATS[profile].format(f"{index} {sampling.seed}", int(second > first))

    world.engine.answer = answer
    found = run(rank(world.service.judge, [opened(GREY), opened(BRIGHT)], RankOptions(thoughts=2)))
    assert (found.mode, [place.index for place in found.ranking]) == ("expected", [1, 0])


REFUSED = [
    ("plain", {"thoughts": 4}, "thoughts"),
    ("evoquality", {"thoughts": 4, "mode": "sampled"}, "thoughts"),
    ("evoquality", {"samples": 4, "mode": "expected"}, "samples"),
    ("plain", {"reasoning": True, "mode": "expected"}, "reasoning"),
    ("plain", {"seed": 0, "mode": "expected"}, "seed"),
]


@pytest.mark.parametrize(("profile", "options", "named"), REFUSED)
def test_options_that_contradict_each_other_are_refused_by_name(
    make_world, run, profile: str, options: dict, named: str
):
    with pytest.raises(InvalidRequest, match=f"^{named} is allowed only with mode"):
        score(make_world(profile=profile), run, **options)


@pytest.mark.parametrize(
    ("profile", "options", "mode"),
    [
        ("plain", {}, "expected"),
        ("plain", {"temperature": 0}, "sampled"),
        ("plain", {"seed": 0}, "sampled"),
        ("plain", {"reasoning": True}, "sampled"),
        ("evoquality", {"temperature": 0.5, "seed": 0, "reasoning": True}, "expected"),
        ("evoquality", {"samples": 2}, "sampled"),
    ],
)
def test_the_options_choose_the_mode(make_world, run, profile: str, options: dict, mode: str):
    assert score(make_world(profile=profile), run, **options).mode == mode


# Repeatability


def noise(prompt: Prompt, sampling: Sampling, index: int) -> str:
    """Another answer for each seed."""
    drawn = hash((sampling.seed, index)) % 100
    return FORMATS["evoquality"].format(
        f"{sampling.seed} {index}", f"{1 + drawn / 25:.2f}" if prompt.task == "score" else drawn % 2
    )


@pytest.fixture
def noisy(make_world: Callable[..., World]) -> World:
    world = make_world(profile="evoquality", cache_entries=0)
    world.engine.answer = noise
    return world


def posted(world: World, run, route: str, files: Sequence[tuple[str, bytes]], **fields: str) -> dict[str, Any]:
    async def story() -> httpx.Response:
        async with world.public() as client:
            return await client.post(route, files=files, data=fields)

    answer = run(story())
    assert answer.status_code == 200, answer.text
    return answer.json()


IMAGES = [picture(50), picture(90), picture(200)]
ROUTES = {
    "/v1/score": [("image", IMAGES[0])],
    "/v1/compare": [("first", IMAGES[0]), ("second", IMAGES[1])],
    "/v1/rank": [("images", image) for image in IMAGES],
    "/v1/score/batch": [("images", image) for image in IMAGES],
}


@pytest.mark.parametrize("mode", ["expected", "sampled"])
@pytest.mark.parametrize("route", ROUTES)
def test_the_same_pictures_get_the_same_answer_and_its_seed_gives_it_again(noisy: World, run, route: str, mode: str):
    one, two = (posted(noisy, run, route, ROUTES[route], mode=mode) for _ in range(2))
    assert one == two
    told = one["results"][0]["result"] if "results" in one else one
    assert 0 <= told["seed"] < 2**31
    again = posted(noisy, run, route, ROUTES[route], mode=mode, seed=str(told["seed"]))
    assert (again["results"][0]["result"] if "results" in one else again) == told


@pytest.mark.parametrize("route", ROUTES)
def test_a_random_seed_is_another_one_every_time_and_is_told(noisy: World, run, route: str):
    answers = [posted(noisy, run, route, ROUTES[route], seed="random") for _ in range(3)]
    told = [answer["results"][0]["result"] if "results" in answer else answer for answer in answers]
    assert len({one["seed"] for one in told}) == 3
    again = posted(noisy, run, route, ROUTES[route], seed=str(told[0]["seed"]))
    assert (again["results"][0]["result"] if "results" in again else again) == told[0]


def test_different_pictures_have_different_noise(noisy: World, run):
    seeds = {posted(noisy, run, "/v1/score", [("image", image)])["seed"] for image in IMAGES}
    assert len(seeds) == 3


def test_a_batch_answers_each_picture_as_it_is_answered_alone(noisy: World, run):
    batch = posted(noisy, run, "/v1/score/batch", ROUTES["/v1/score/batch"])
    alone = [posted(noisy, run, "/v1/score", [("image", image)]) for image in IMAGES]
    assert [item["result"] for item in batch["results"]] == alone


@pytest.mark.parametrize("mode", ["expected", "sampled"])
def test_a_pair_gets_the_same_answers_whichever_picture_is_named_first(noisy: World, run, mode: str):
    one = posted(noisy, run, "/v1/compare", [("first", IMAGES[0]), ("second", IMAGES[1])], mode=mode)
    other = posted(noisy, run, "/v1/compare", [("first", IMAGES[1]), ("second", IMAGES[0])], mode=mode)
    assert one["probability_first"] == pytest.approx(1 - other["probability_first"])
    assert one["seed"] == other["seed"]


def test_pictures_in_another_order_get_the_same_ranking(noisy: World, run):
    found = posted(noisy, run, "/v1/rank", ROUTES["/v1/rank"])
    turned = posted(noisy, run, "/v1/rank", ROUTES["/v1/rank"][::-1])
    strengths = {place["index"]: place["strength"] for place in found["ranking"]}
    assert {2 - place["index"]: place["strength"] for place in turned["ranking"]} == strengths


@pytest.mark.parametrize("options", [{"temperature": 0}, {"mode": "expected"}], ids=str)
def test_where_nothing_is_drawn_no_seed_is_told(world: World, run, options: dict[str, Any]):
    assert score(world, run, **options).seed is None


@pytest.mark.parametrize("seed", ["-1", "2147483648", "any", "1.5"])
def test_a_seed_is_a_number_or_random(world: World, run, seed: str):
    async def story() -> httpx.Response:
        async with world.public() as client:
            return await client.post("/v1/score", files={"image": IMAGES[0]}, data={"seed": seed})

    answer = run(story())
    assert answer.status_code == 422 and answer.json()["detail"].startswith("seed: "), answer.text


# Spaces before an answer


def full(**some: float) -> dict[str, float]:
    return dict.fromkeys((*TOKENS, " ", "\n"), 0.0) | some


def test_a_likely_space_adds_what_stands_behind_it_by_the_law_of_total_probability():
    path = [Step(" ", full(**{" ": 0.6, "0": 0.3, "1": 0.1})), Step("1", full(**{"0": 0.25, "1": 0.75}))]
    lead, [step] = behind_space(path, ("0", "1"))
    assert lead == " "
    assert (step.probabilities["0"], step.probabilities["1"]) == pytest.approx((0.3 + 0.6 * 0.25, 0.1 + 0.6 * 0.75))


def test_an_unlikely_space_is_followed_by_what_stands_there_without_it():
    path = [Step("0", full(**{"\n": 0.2, "0": 0.6, "1": 0.2})), Step(TOKENS[-1], full())]
    lead, [step, _] = behind_space(path, ("0", "1"))
    assert (lead, step.taken) == ("", "0")
    assert (step.probabilities["0"], step.probabilities["1"]) == pytest.approx((0.75, 0.25))


def test_a_tree_behind_a_space_keeps_it_before_every_beginning():
    tree = ScoreTree()
    tree.grow("", [Step(" ", full(**{" ": 1.0})), Step("3", full(**{"3": 0.5, "4": 0.5}))])
    assert (tree.lead, tree.unknown()) == (" ", ["3", "4"])
