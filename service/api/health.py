"""`GET /health/live`, `GET /health/ready` and `GET /metrics`: open, on both ports."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from service.api.service import service_of
from service.contract import HealthResponse, Problem
from service.errors import NotReady

router = APIRouter(tags=["health"])


@router.get("/health/live")
async def live(request: Request) -> HealthResponse:
    """The process answers."""
    return HealthResponse(status="live", version=service_of(request).gate.version.id)


@router.get("/health/ready", responses={503: {"model": Problem}})
async def ready(request: Request) -> HealthResponse:
    """The engine itself answers, through its own queue, with the version that serves."""
    service = service_of(request)
    if service.draining:
        raise NotReady("The service is shutting down.")
    try:
        await asyncio.wait_for(service.engine.probe(), service.settings.probe_seconds)
    except TimeoutError:
        raise NotReady("The engine does not answer.") from None
    return HealthResponse(status="ready", version=service.gate.version.id)


@router.get("/metrics", include_in_schema=False)
async def metrics() -> Response:
    """Prometheus metrics: the service's (`iqa_`) and the engine's (`vllm:`)."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
