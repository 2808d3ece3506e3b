"""`POST /v1/score` and `POST /v1/compare`: a multipart form with files, or JSON with base64."""

from __future__ import annotations

from fastapi import APIRouter, Request

from evoquality.contract import CompareRequest, CompareResponse, ScoreRequest, ScoreResponse
from service.api.body import both_forms, read_body
from service.api.openapi import problems
from service.api.service import service_of

router = APIRouter(
    prefix="/v1",
    tags=["judge"],
    responses=problems(401, 408, 409, 415, 422, 429, 503, 504),
)


@router.post("/score", openapi_extra=both_forms(ScoreRequest, ("image",)))
async def score(request: Request) -> ScoreResponse:
    """The perceptual quality of one image, from 1 (very poor) to 5 (excellent).

    In expected mode, the default where the model answers without thinking, `score` is the mean of the model's own
    distribution over tenths of a score: exact and repeatable. In sampled mode the model answers `samples` times
    and `score` is the mean of the readable answers, repeatable with a `seed` or with `temperature` 0. Giving
    `samples`, `temperature`, `seed` or `reasoning` chooses sampled mode.
    """
    service = service_of(request)
    options, images = await read_body(request, ScoreRequest, ("image",))
    async with service.decoder.opened(images) as (picture,):
        return await service.judge.score(picture, options)


@router.post("/compare", openapi_extra=both_forms(CompareRequest, ("first", "second")))
async def compare(request: Request) -> CompareResponse:
    """Which of two images looks better, asked in both orders of presentation.

    In expected mode, the default where the model answers without thinking, `probability_first` is the mean of the
    model's own probabilities; in sampled mode it is the share of `samples` votes, half of them in each order.
    """
    service = service_of(request)
    options, images = await read_body(request, CompareRequest, ("first", "second"))
    async with service.decoder.opened(images) as (first, second):
        return await service.judge.compare(first, second, options)
