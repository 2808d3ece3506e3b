"""Rollouts make room for users."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from service.engine.traffic import Traffic


async def let_in(
    traffic: Traffic, prompts: int, sequences: int = 1
) -> tuple[list[asyncio.Task[None]], list[int], asyncio.Event]:
    """Starts so many prompts of rollouts, which stay until the event is set."""
    inside, end = [], asyncio.Event()

    async def prompt(number: int) -> None:
        async with traffic.rollout(sequences):
            inside.append(number)
            await end.wait()

    tasks = [asyncio.create_task(prompt(number)) for number in range(prompts)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks, inside, end


def test_without_users_every_prompt_is_let_in(run):
    async def story() -> int:
        tasks, inside, end = await let_in(Traffic(2), 50)
        end.set()
        await asyncio.gather(*tasks)
        return len(inside)

    assert run(story()) == 50


def test_beside_users_only_so_many_are_let_in_in_order_and_the_rest_when_the_users_have_gone(run):
    async def story() -> tuple[list[int], list[int]]:
        traffic = Traffic(2)
        with traffic.user():
            tasks, inside, end = await let_in(traffic, 5)
            beside = list(inside)
        await asyncio.sleep(0)
        after = list(inside)
        end.set()
        await asyncio.gather(*tasks)
        return beside, after

    assert run(story()) == ([0, 1], [0, 1, 2, 3, 4])


def test_one_that_ends_lets_in_the_next(run):
    async def story() -> list[int]:
        traffic = Traffic(1)
        with traffic.user():
            tasks, inside, end = await let_in(traffic, 3)
            end.set()
            await asyncio.gather(*tasks)
        return inside

    assert run(story()) == [0, 1, 2]


@pytest.mark.parametrize(("sequences", "inside"), [(1, 8), (2, 4), (3, 2), (8, 1), (32, 1)])
def test_beside_users_the_answers_count_not_the_prompts_and_one_prompt_enters_in_any_case(
    run, sequences: int, inside: int
):
    async def story() -> tuple[int, int]:
        traffic = Traffic(8)
        with traffic.user():
            tasks, entered, end = await let_in(traffic, 12, sequences)
            beside = len(entered)
            end.set()
            await asyncio.gather(*tasks)
        return beside, len(entered)

    assert run(story()) == (inside, 12)


def test_prompts_cancelled_at_any_moment_take_no_place(run):
    async def story() -> list[int]:
        traffic = Traffic(1)
        with traffic.user():
            tasks, inside, end = await let_in(traffic, 4)
            tasks[1].cancel()  # waits
            tasks[0].cancel()  # is inside
            await asyncio.sleep(0)
            tasks[2].cancel()  # was let in just now, or waits
            for task in tasks[:3]:
                with suppress(asyncio.CancelledError):
                    await task
            end.set()
            await tasks[3]
        return inside

    assert run(story())[-1] == 3
