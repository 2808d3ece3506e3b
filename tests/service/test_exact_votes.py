"""`POST /internal/exact-votes`: probabilities of both votes on many pairs, in both orders."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from service.engine.protocol import END, Prompt, Sampling
from service.errors import EngineFailure, NotSpelled
from tests.service.conftest import World, picture
from tests.service.test_http import assert_problem
from tests.service.test_judge import replies
from tests.service.test_operators import ask

IMAGES = {name: base64.b64encode(picture(value)).decode() for name, value in (("dark", 50), ("bright", 200))}
BATCH = {"images": IMAGES, "pairs": [["dark", "bright"], ["bright", "dark"]]}


def exact_votes(world: World, run, **changes: Any) -> httpx.Response:
    return ask(world, run, "POST", "/internal/exact-votes", json={**BATCH, **changes})


def test_votes_go_to_the_pairs_own_images_in_both_orders(world: World, run):
    answer = exact_votes(world, run).json()
    assert answer["version"] == world.first
    for result, brighter in zip(answer["results"], ("second", "first"), strict=True):
        assert result["forward"][brighter] == result["backward"][brighter] == 0.99
    shown = [tuple(image.getpixel((0, 0))[0] for image in prompt.images) for prompt, *_ in world.engine.asked]
    assert sorted(shown) == [(50, 200)] * 2 + [(200, 50)] * 2


def test_a_model_that_prefers_the_image_shown_first_votes_for_either(world: World, run):
    world.engine.answer = replies("0")
    [result, _] = exact_votes(world, run).json()["results"]
    assert result["forward"]["first"] == result["backward"]["second"] == 0.99
    assert result["forward"]["second"] == result["backward"]["first"] < 0.01


def test_what_is_no_vote_is_missing_to_one(world: World, run):
    world.engine.answer = replies("?")
    [result, _] = exact_votes(world, run).json()["results"]
    assert sum(result["forward"].values()) == pytest.approx(0.02 / 3)


def test_they_wait_behind_users_and_are_never_kept(world: World, run):
    for _ in range(2):
        exact_votes(world, run, priority=20)
    assert [priority for *_, priority in world.engine.asked] == [20] * 8


def test_another_version_than_the_one_asked_for_is_a_conflict(world: World, run):
    assert_problem(exact_votes(world, run, version=world.second), 409, "version_conflict")
    assert exact_votes(world, run, version=world.first).status_code == 200


def test_a_pair_of_an_image_that_is_not_there_is_refused(world: World, run):
    assert_problem(refused := exact_votes(world, run, pairs=[["dark", "missing"]]), 422, "invalid_request")
    assert refused.json()["detail"].startswith("pairs.0")


def thought(prompt: Prompt, sampling: Sampling, index: int) -> str:
    """Every other thought is for the picture shown first; one in ten finds no answer."""
    number = (sampling.seed or 0) + index
    answer = "" if number % 10 == 9 else rf" \boxed{{{number % 2}}}"
    return f"<think>Number {number}.</think>{answer}"


def test_of_a_model_that_thinks_they_are_means_over_thoughts_that_go_on_where_others_stopped(make_world, run):
    world = make_world(profile="evoquality")
    world.engine.answer = thought
    [whole, _] = exact_votes(world, run, thoughts=20, temperature=0.5).json()["results"]
    drawn = [sampling for _, sampling, *_ in world.engine.asked if sampling.stop]
    assert {(one.n, one.temperature) for one in drawn} == {(20, 0.5)}
    assert len({one.seed for one in drawn}) == 2, "each order has its own noise"
    parts = [exact_votes(world, run, thoughts=10, first_thought=start).json()["results"][0] for start in (0, 10)]
    for order in ("forward", "backward"):
        first, second = ("first", "second") if order == "forward" else ("second", "first")
        assert whole[order][first] == pytest.approx(10 / 20, abs=0.01)
        assert whole[order][second] == pytest.approx(8 / 20, abs=0.01)
        for side in ("first", "second"):
            assert sum(part[order][side] for part in parts) / 2 == pytest.approx(whole[order][side])


def test_thoughts_that_the_limit_ends_are_counted_apart(make_world, run):
    world = make_world(profile="evoquality")
    world.engine.answer = thought
    [result, _] = exact_votes(world, run, thoughts=4, max_answer_tokens=8).json()["results"]
    assert result["forward"] == result["backward"] == {"first": 0, "second": 0, "cut_off": 1}


def test_a_model_that_does_not_spell_digits_has_none(world: World, run, monkeypatch: pytest.MonkeyPatch):
    async def follow(prompt: Prompt, beginnings: list[str], tokens: tuple[str, ...], steps: int, **_: Any) -> None:
        assert tokens == ("0", "1", END)
        raise NotSpelled("mode=expected needs a tokenizer with one token per digit; use mode=sampled.")

    monkeypatch.setattr(world.engine, "follow", follow)
    assert_problem(refused := exact_votes(world, run), 422, "no_exact_votes")
    assert "vote by samples" in refused.json()["detail"]


def test_weights_of_another_version_are_a_failure(world: World, run):
    world.engine.version = world.second
    assert_problem(exact_votes(world, run), EngineFailure.status, "engine_failure")
