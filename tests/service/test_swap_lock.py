"""The swap lock: many requests share it, or one swap has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from evoquality.contract import VersionInfo
from service.errors import DrainTimeout, Swapping
from service.observability.logs import request_id
from service.versions.swap_lock import SwapLock


def info(name: str) -> VersionInfo:
    return VersionInfo(id=name, parent=None, created=datetime.now(UTC), profile="plain", origin="", metrics={})


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_a_swap_waits_for_requests_and_new_ones_wait_for_the_swap(run):
    async def story() -> list[str]:
        swap_lock, events = SwapLock(info("old")), []
        may_end, may_swap = asyncio.Event(), asyncio.Event()

        async def request(name: str) -> None:
            request_id.set(name)
            async with swap_lock.shared() as version:
                await may_end.wait()
                events.append(f"{name}:{version.id}")

        async def swap() -> None:
            async with swap_lock.exclusive(60):
                events.append("swap")
                await may_swap.wait()
                swap_lock.version = info("new")

        async with asyncio.TaskGroup() as group:
            group.create_task(request("early"))
            await until(lambda: swap_lock._readers)
            group.create_task(swap())
            await until(lambda: not swap_lock.is_open)
            group.create_task(request("late"))
            await until(lambda: swap_lock.blocks("late"))
            may_end.set()
            await until(lambda: "swap" in events)
            assert swap_lock.blocks("late")
            may_swap.set()
        return events

    assert run(story()) == ["early:old", "swap", "late:new"]


def test_a_drain_that_takes_too_long_opens_the_lock_again(run):
    async def story() -> str:
        swap_lock = SwapLock(info("old"))
        async with swap_lock.shared():
            with pytest.raises(DrainTimeout):
                async with swap_lock.exclusive(0.01):
                    pytest.fail("a swap began under a request")
        async with swap_lock.shared() as version:
            return version.id

    assert run(story()) == "old"


def test_a_failed_or_cancelled_request_leaves(run):
    async def story() -> None:
        swap_lock = SwapLock(info("old"))

        async def fail() -> None:
            async with swap_lock.shared():
                raise ValueError

        async def linger() -> None:
            async with swap_lock.shared():
                await asyncio.Event().wait()

        task = asyncio.create_task(linger())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(ValueError):
            await fail()
        async with swap_lock.exclusive(1):
            pass

    run(story())


def test_a_request_that_wakes_after_the_next_swap_began_waits_on(run):
    async def story() -> list[str]:
        swap_lock, events = SwapLock(info("old")), []

        async def request() -> None:
            async with swap_lock.shared():
                events.append("request")

        async with asyncio.TaskGroup() as group:
            async with swap_lock.exclusive(1):
                group.create_task(request())
                await asyncio.sleep(0)
            async with swap_lock.exclusive(1):  # the waiter was woken, but has not run yet
                for _ in range(5):
                    await asyncio.sleep(0)
                events.append("second swap")
        return events

    assert run(story()) == ["second swap", "request"]


def test_a_body_that_times_out_is_not_taken_for_a_drain(run):
    async def story() -> None:
        swap_lock = SwapLock(info("old"))
        with pytest.raises(TimeoutError):
            async with swap_lock.exclusive(1):
                raise TimeoutError

    run(story())


def test_the_trainers_requests_give_way_to_a_swap_and_the_users_do_not(run):
    async def story() -> list[str]:
        swap_lock, events = SwapLock(info("old")), []
        may_end = asyncio.Event()

        async def user() -> None:
            async with swap_lock.shared():
                await may_end.wait()
                events.append("user")

        async def trainer() -> None:
            with pytest.raises(Swapping):
                async with swap_lock.giving_way():
                    await asyncio.Event().wait()
            events.append("gave way")
            may_end.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(user())
            group.create_task(trainer())
            await until(lambda: swap_lock._readers == 2)
            async with swap_lock.exclusive(60):
                events.append("swap")
        async with swap_lock.giving_way() as version:
            events.append(version.id)
        return events

    assert run(story()) == ["gave way", "user", "swap", "old"]


def test_a_time_limit_of_the_trainers_own_is_not_taken_for_a_swap(run):
    async def story() -> None:
        with pytest.raises(TimeoutError):
            async with SwapLock(info("old")).giving_way():
                raise TimeoutError

    run(story())
