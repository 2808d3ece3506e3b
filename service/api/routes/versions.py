"""`GET /v1/versions`: what serves, what served before, what could."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request

from service.api.openapi import problems
from service.api.service import service_of
from service.contract import ListedVersion, VersionsResponse
from service.versions import benchmarks, refusals
from service.versions.store import VersionStore

router = APIRouter(prefix="/v1", tags=["versions"])


@router.get("/versions", responses=problems(401, 429))
async def versions(request: Request) -> VersionsResponse:
    """Every version in the store, the active one and the one before it."""
    service = service_of(request)
    known = await asyncio.to_thread(_listed, service.store)
    active = await asyncio.to_thread(service.store.active)
    return VersionsResponse(
        active=service.gate.version.id,
        previous=active.previous if active else None,
        versions=known,
    )


def _listed(store: VersionStore) -> list[ListedVersion]:
    return [
        ListedVersion(
            **info.model_dump(),
            benchmarks=benchmarks.read(store, info.id),
            refused=refusals.reason(store, info.id),
        )
        for info in store.list()
    ]
