"""`GET /health/live` and `GET /health/ready`, open on both ports; `GET /metrics`, open on the operators' port only."""

from __future__ import annotations

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from evoquality.contract import HealthResponse
from service.api.openapi import problems
from service.api.service import service_of
from service.concurrency import file_work
from service.errors import EngineHangs

router = APIRouter(tags=["health"])
scraped = APIRouter()
"""For Prometheus. It shows all callers' traffic, so it is not on the public port."""


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", responses=problems(503))
async def live(request: Request) -> HealthResponse:
    """The process answers, and need not be restarted for an engine that hangs."""
    if service_of(request).watchdog.must_end:
        raise EngineHangs("The engine does not answer; restart the service.")
    return HealthResponse(status="live", version=service_of(request).swap_lock.version.id)


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", responses=problems(503))
async def ready(request: Request) -> HealthResponse:
    """The engine itself answers, through its own queue, with the version that serves."""
    service = service_of(request)
    await service.readiness.check()
    return HealthResponse(status="ready", version=service.swap_lock.version.id)


@scraped.get("/metrics", include_in_schema=False)
async def metrics() -> Response:
    """Prometheus metrics: the service's (`iqa_`) and the engine's (`vllm:`)."""
    return Response(await file_work(generate_latest), media_type=CONTENT_TYPE_LATEST)  # reads /proc
