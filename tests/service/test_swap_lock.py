"""The admission gate: many holders or one swap."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from evoquality.contract import VersionInfo
from service.errors import DrainTimeout
from service.versions.swap_lock import SwapLock


def info(name: str) -> VersionInfo:
    return VersionInfo(id=name, parent=None, created=datetime.now(UTC), profile="plain", origin="", metrics={})


def test_a_swap_waits_for_holders_and_newcomers_wait_for_the_swap(run):
    async def story() -> list[str]:
        swap_lock, events = SwapLock(info("old")), []

        async def request(name: str, seconds: float) -> None:
            async with swap_lock.shared() as version:
                await asyncio.sleep(seconds)
                events.append(f"{name}:{version.id}")

        async def swap() -> None:
            async with swap_lock.exclusive(5):
                events.append("swap")
                await asyncio.sleep(0.02)
                swap_lock.version = info("new")

        async with asyncio.TaskGroup() as group:
            group.create_task(request("early", 0.05))
            await asyncio.sleep(0)
            group.create_task(swap())
            await asyncio.sleep(0.01)
            group.create_task(request("late", 0))
        return events

    assert run(story()) == ["early:old", "swap", "late:new"]


def test_a_drain_that_takes_too_long_opens_the_gate_again(run):
    async def story() -> str:
        swap_lock = SwapLock(info("old"))
        async with swap_lock.shared():
            with pytest.raises(DrainTimeout):
                async with swap_lock.exclusive(0.01):
                    pytest.fail("a swap began under a holder")
        async with swap_lock.shared() as version:
            return version.id

    assert run(story()) == "old"


def test_a_failed_or_cancelled_holder_leaves(run):
    async def story() -> None:
        swap_lock = SwapLock(info("old"))

        async def fail() -> None:
            async with swap_lock.shared():
                raise ValueError

        async def linger() -> None:
            async with swap_lock.shared():
                await asyncio.sleep(60)

        task = asyncio.create_task(linger())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(ValueError):
            await fail()
        async with swap_lock.exclusive(1):
            pass

    run(story())


def test_who_wakes_after_the_gate_closed_again_goes_on_waiting(run):
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
                await asyncio.sleep(0.01)
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
