"""`GET /v1/versions` lists the store's versions, `GET /v1/info` describes the serving one."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from evoquality.contract import MAX_BATCH, MAX_RANKED, InfoResponse, VersionsResponse
from service.api.openapi import problems
from service.api.service import service_of
from service.concurrency import file_work
from service.prompts import PROFILES
from service.versions.store import VersionStore

router = APIRouter(prefix="/v1", tags=["versions"])
info_router = APIRouter(prefix="/v1", tags=["versions"])
"""On both ports: the trainer has the operators' key, but may lack a caller's."""


@router.get("/versions", responses=problems(401, 429), response_model=VersionsResponse)
async def versions(request: Request) -> Response:
    """Every version in the store that can be read, the active one and the one before it."""
    service = service_of(request)
    async with service.listing:  # threads that wait for one another would keep others waiting
        content = await file_work(_listing, service.store, service.swap_lock.version.id)
    return Response(content, media_type="application/json")


def _listing(store: VersionStore, active: str) -> bytes:
    pointer = store.pointer()
    previous = pointer.previous if pointer else None
    return VersionsResponse(active=active, previous=previous, versions=list(store.listed())).model_dump_json().encode()


@info_router.get("/info", responses=problems(401, 429))
async def info(request: Request) -> InfoResponse:
    """The serving model, its modes, and the limits of a request."""
    service = service_of(request)
    settings, version = service.settings, service.swap_lock.version
    profile = PROFILES[version.profile]
    pixels = service.engine.pixel_limits(profile)
    return InfoResponse(
        model=settings.model_name,
        version=version.id,
        role=settings.role,
        follows=settings.follow,
        profile=version.profile,
        thinks=profile.thinks,
        max_answer_tokens=settings.max_answer_tokens if profile.thinks else None,
        modes=["expected", "sampled"],
        dtype=settings.dtype,
        parameters=service.swapper.parameters,
        max_num_seqs=settings.max_num_seqs,
        formats=list(service.decoder.formats),
        max_upload_bytes=settings.max_upload_bytes,
        max_image_pixels=settings.max_image_pixels,
        max_image_side=settings.max_image_side,
        min_image_side=settings.min_image_side,
        min_pixels=pixels.smallest if pixels else None,
        max_pixels=pixels.largest if pixels else None,
        max_batch=MAX_BATCH,
        max_ranked=MAX_RANKED,
        url_hosts=list(settings.url_hosts),
    )
