"""`POST /v1/rank`: images in the order of their quality."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.api.body import both_forms, read_body
from service.api.callers import charge
from service.api.openapi import problems
from service.api.service import service_of
from service.contract import MAX_RANKED, RankRequest, RankResponse
from service.ranking.rank import rank

PATHS = ("/v1/rank",)

router = APIRouter(
    prefix="/v1",
    tags=["judge"],
    responses=problems(401, 408, 409, 415, 422, 429, 503, 504),
)


@router.post("/rank", openapi_extra=both_forms(RankRequest, ("images",)))
async def rank_images(request: Request) -> RankResponse:
    """Orders 2 to 64 images from the best to the worst.

    Pairs are compared in both orders of presentation, those first that tell most: about n log2(n) of them instead
    of all n (n - 1) / 2. The result is a Bradley-Terry strength for every image, with its standard error.
    """
    service = service_of(request)
    options, images = await read_body(request, RankRequest, ("images",), MAX_RANKED)
    await charge(request, len(images))
    async with service.decoder.opened(images) as pictures:
        return await rank(service.judge, pictures, options)
