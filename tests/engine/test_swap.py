"""Hot swaps under load: nothing lost, nothing mixed, and nothing bad ever served."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from evoquality import AsyncClient, ServiceError, encode_image
from evoquality.contract import (
    CompareOptions,
    CompareResponse,
    RolloutPrompt,
    RolloutRequest,
    ScoreOptions,
    ScoreResponse,
    SwapResponse,
)
from tests.benchmarks.soak import is_pure
from tests.benchmarks.soak_traffic import Questions, Seen, ask, cold
from tests.engine.checkpoints import Tensors, perturbed, rewritten
from tests.engine.conftest import add
from tests.engine.pictures import ask_greedily, tokens
from tests.engine.running import Running

pytestmark = pytest.mark.engine

CALLERS = 24
PROJECTION = "model.layers.1.mlp.up_proj.weight"


def test_a_swap_under_repeated_images_and_k_votes_loses_and_mixes_nothing(
    service: Running, first: str, second: str, images: list[bytes]
):
    seen, swaps = asyncio.run(_swap_under_load(service, images[:4], [second, first, second]))
    assert {first, second} == seen
    assert all(swap.blackout_ms >= swap.drain_ms + swap.reload_ms > 0 for swap in swaps)
    assert service.active == second


def test_requests_arriving_during_a_swap_are_answered_by_the_new_version(
    service: Running, first: str, second: str, images: list[bytes]
):
    versions = asyncio.run(_arrive_during_swap(service, second, images))
    assert set(versions) <= {first, second}
    assert second in versions


def test_swapping_back_gives_the_old_answers_again(service: Running, first: str, second: str, images: list[bytes]):
    before = tokens(ask_greedily(service, images))
    service.operators.promote(second)
    between = tokens(ask_greedily(service, images))
    assert service.operators.rollback().version == first
    assert between != before == tokens(ask_greedily(service, images))


def test_swaps_under_32_callers_give_exactly_the_cold_values_and_lose_none(
    service: Running, first: str, second: str, images: list[bytes]
):
    """Every kind of request of the soak, with small pictures for photographs."""
    questions, known = Questions(images, images), {}
    for version in (second, first):
        service.operators.promote(version)
        known[version] = asyncio.run(cold(service.url, questions))
    seen, versions = asyncio.run(_asked_while_swapped(service, questions, [second, first] * 5))
    assert versions == {first, second}
    assert not [each.problems for each in seen if each.problems]
    assert not [each for each in seen if not is_pure(each, known)]


async def _asked_while_swapped(service: Running, questions: Questions, swaps: list[str]) -> tuple[list[Seen], set[str]]:
    """Thirty-two callers; a swap begins whenever as many requests were answered since the last one."""
    batch = questions.batch(range(len(questions.photographs)))
    asked, seen, over = itertools.cycle([*questions.whole(), batch]), [], asyncio.Event()
    answered = asyncio.Condition()

    async def caller(client: httpx.AsyncClient) -> None:
        while not over.is_set():
            seen.append(await ask(client, next(asked)))
            async with answered:
                answered.notify_all()

    async with httpx.AsyncClient(base_url=service.url, timeout=60) as client, asyncio.TaskGroup() as group:
        for _ in range(32):
            group.create_task(caller(client))
        async with AsyncClient(service.operator_url, key=service.key) as operators:
            for version in swaps:
                enough = len(seen) + 32
                async with answered:
                    await answered.wait_for(lambda enough=enough: len(seen) >= enough)
                await operators.promote(version)
        over.set()
    return seen, {version for each in seen for version in each.versions}


def _without_a_tensor(tensors: Tensors) -> None:
    del tensors[PROJECTION]


def _with_a_wrong_shape(tensors: Tensors) -> None:
    tensors[PROJECTION] = np.ascontiguousarray(tensors[PROJECTION][:-2])


def _with_nan(tensors: Tensors) -> None:
    tensors[PROJECTION][0, 0] = np.nan


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_without_a_tensor, "missing_tensor"),
        (_with_a_wrong_shape, "wrong_shape"),
        (_with_nan, "not_finite"),
    ],
)
def test_a_damaged_version_is_refused_and_the_old_one_goes_on(
    service: Running,
    first: str,
    images: list[bytes],
    tmp_path: Path,
    damage: Callable[[Tensors], None],
    reason: str,
):
    version = add(service.store, rewritten(service.store.path(first), tmp_path / "bad", damage), first)
    _assert_refused(service, first, version, images, 422, reason)


def test_a_version_that_answers_gibberish_is_refused_and_the_old_one_goes_on(
    service: Running, first: str, images: list[bytes], environment: dict[str, str], tmp_path: Path
):
    if environment:
        pytest.skip("random weights answer no canary readably either")
    version = add(service.store, perturbed(service.store.path(first), tmp_path / "bad", seed=9, scale=20), first)
    _assert_refused(service, first, version, images, 422, "unreadable_canaries")


def test_a_version_without_a_directory_is_refused_and_the_old_one_goes_on(
    service: Running, first: str, images: list[bytes]
):
    _assert_refused(service, first, "v0123456789ab", images, 404, "no such version")


def test_a_version_whose_files_changed_is_refused(
    service: Running, first: str, second: str, images: list[bytes], tmp_path: Path
):
    kept = tmp_path / "kept"
    shutil.copytree(service.store.path(second), kept)
    with (service.store.path(second) / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x00")
    try:
        _assert_refused(service, first, second, images, 422, "hash_mismatch")
    finally:
        shutil.copytree(kept, service.store.path(second), dirs_exist_ok=True)


def test_rollouts_can_insist_on_a_version(service: Running, first: str, second: str, images: list[bytes]):
    prompt = RolloutPrompt(task="score", images=["a"], samples=1)
    request = RolloutRequest(images={"a": encode_image(images[0])}, prompts=[prompt], version=second)
    with pytest.raises(ServiceError) as refusal:
        service.operators.rollouts(request)
    assert refusal.value.problem.code == "version_conflict"


def _assert_refused(service: Running, first: str, version: str, images: list[bytes], status: int, reason: str) -> None:
    before = tokens(ask_greedily(service, images))
    with pytest.raises(ServiceError) as refusal:
        service.operators.promote(version)
    assert refusal.value.problem.status == status
    assert reason in refusal.value.problem.detail
    assert service.active == first
    assert tokens(ask_greedily(service, images)) == before


async def _swap_under_load(
    service: Running, images: list[bytes], swaps: list[str]
) -> tuple[set[str], list[SwapResponse]]:
    """Callers repeat a few images, a trainer asks for K votes; meanwhile versions change."""
    seen: set[str] = set()
    done = asyncio.Event()

    async def caller(client: AsyncClient, number: int) -> None:
        while not done.is_set():
            answer: ScoreResponse | CompareResponse
            first, second = images[number % len(images)], images[(number + 1) % len(images)]
            if number % 3 == 0:
                answer = await client.score(first, ScoreOptions(samples=8))
            elif number % 3 == 1:
                answer = await client.compare(first, second, CompareOptions(samples=8))
            else:
                answer = await client.score(first)  # expected: from the cache, until the swap empties it
            seen.add(answer.version)

    async def voter(operators: AsyncClient) -> None:
        prompt = RolloutPrompt(task="compare", images=["a", "b"], samples=32)
        shown = {"a": encode_image(images[0]), "b": encode_image(images[1])}
        while not done.is_set():
            answer = await operators.rollouts(RolloutRequest(images=shown, prompts=[prompt] * 4))
            seen.add(answer.version)

    async with (
        AsyncClient(service.url) as client,
        AsyncClient(service.operator_url, service.key) as operators,
        asyncio.TaskGroup() as group,
    ):
        for number in range(CALLERS):
            group.create_task(caller(client, number))
        group.create_task(voter(operators))
        answers = []
        for version in swaps:
            await asyncio.sleep(2)
            answers.append(await operators.promote(version))
        await asyncio.sleep(1)
        done.set()
    return seen, answers


async def _arrive_during_swap(service: Running, version: str, images: list[bytes]) -> list[str]:
    """Sends requests all the while a swap runs."""
    async with (
        AsyncClient(service.url) as client,
        AsyncClient(service.operator_url, service.key) as operators,
        asyncio.TaskGroup() as group,
    ):
        swap = group.create_task(operators.promote(version))
        asked: list[Any] = []
        while not swap.done():
            options = ScoreOptions(samples=2)
            asked.append(group.create_task(client.score(images[len(asked) % len(images)], options)))
            await asyncio.sleep(0.005)
        asked.append(group.create_task(client.score(images[0])))
    return [task.result().version for task in asked]
