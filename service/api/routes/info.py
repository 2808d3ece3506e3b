"""`GET /v1/info`: what serves and what it takes."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.api.openapi import problems
from service.api.service import service_of
from service.contract import MAX_BATCH, MAX_RANKED, InfoResponse, Mode
from service.prompts import PROFILES

router = APIRouter(prefix="/v1", tags=["versions"])


@router.get("/info", responses=problems(401, 429))
async def info(request: Request) -> InfoResponse:
    """The serving model, its modes, and the limits of a request."""
    service = service_of(request)
    settings, version = service.settings, service.gate.version
    thinks = PROFILES[version.profile].thinks
    modes: list[Mode] = ["sampled"] if thinks else ["expected", "sampled"]
    return InfoResponse(
        model=settings.model_name,
        version=version.id,
        role=settings.role,
        follows=settings.follow,
        profile=version.profile,
        thinks=thinks,
        modes=modes,
        dtype=settings.dtype,
        formats=list(service.decoder.formats),
        max_upload_bytes=settings.max_upload_bytes,
        max_image_pixels=settings.max_image_pixels,
        max_image_side=settings.max_image_side,
        min_image_side=settings.min_image_side,
        min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels,
        max_batch=MAX_BATCH,
        max_ranked=MAX_RANKED,
        url_hosts=list(settings.url_hosts),
    )
