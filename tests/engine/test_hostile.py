"""The hostile bodies against the real service, over real connections."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.engine.running import Running
from tests.hostile import Attack, attacks, leak
from tests.service.conftest import picture

pytestmark = pytest.mark.engine
CALLERS = 16
WARM_UP, ROUNDS = 3, 3
"""The allocator takes some rounds until its memory is spread over all threads."""


def resident_mib(process: int) -> float:
    """The memory of the process that reads requests and decodes pictures."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def test_hostile_bodies_leave_the_service_as_it_was(service: Running):
    process = service.process.pid
    asked = attacks()

    async def story() -> list[float]:
        after = []
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            for _ in range(WARM_UP + ROUNDS):
                callers = asyncio.Semaphore(CALLERS)
                await asyncio.gather(*(_attack(client, callers, one) for one in asked))
                after.append(resident_mib(process))
        return after

    after = asyncio.run(story())
    assert after[-1] - after[WARM_UP - 1] < 32, f"it grows with every round: {after} MiB"
    assert service.process.poll() is None and service.process.pid == process
    assert service.public.ready().status == "ready"
    assert service.public.score(picture()).version == service.active


async def _attack(client: httpx.AsyncClient, callers: asyncio.Semaphore, one: Attack) -> None:
    async with callers:
        response = await client.post(one.path, content=one.body, headers={"content-type": one.content_type.encode()})
    busy = response.status_code == 503 and response.json()["code"] == "too_busy"
    assert response.status_code < 500 or busy, (one.path, one.body[:200], response.text)
    assert leak(response.json()) is None, (one.path, one.body[:200])
