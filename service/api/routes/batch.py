"""`POST /v1/score/batch` and `POST /v1/rank`: many images, judged by one version.

These routes charge a key for each image, so they charge it for the others once they have read the body.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from evoquality.contract import (
    MAX_BATCH,
    MAX_RANKED,
    RankRequest,
    RankResponse,
    ScoreBatchItem,
    ScoreBatchRequest,
    ScoreBatchResponse,
    ScoreResponse,
)
from evoquality.lines import NDJSON
from service.api.body import both_forms, read_body
from service.api.dependencies import charge_others
from service.api.encoding import encoded
from service.api.lines import UntilAnswered, described, wants_lines
from service.api.openapi import problems
from service.api.problems import problem_of
from service.api.service import service_of
from service.api.watch import deadline
from service.judging.batch import Batch, Outcome
from service.ranking.rank import rank

PATHS = ("/v1/score/batch", "/v1/rank")
"""Routes whose bodies hold many images."""

router = APIRouter(
    prefix="/v1",
    tags=["judge"],
    responses=problems(401, 408, 409, 415, 422, 429, 503, 504),
)


@router.post(
    "/score/batch",
    response_model=ScoreBatchResponse,
    responses=described("ScoreBatchItem"),
    openapi_extra=both_forms(ScoreBatchRequest, ("images",)),
)
async def score_batch(request: Request, until_answered: UntilAnswered) -> Response:
    """Scores up to 64 images by one version of the weights; an image that fails does not fail the others.

    Past the request's deadline, images without an answer have the problem `deadline_exceeded`.

    With `Accept: application/x-ndjson` every answer is sent as it is ready, one ScoreBatchItem a line.
    """
    service = service_of(request)
    options, images = await read_body(request, ScoreBatchRequest, ("images",), MAX_BATCH)
    await charge_others(request, len(images))
    pictures = await until_answered.enter_async_context(service.decoder.tried(images))
    batch = await until_answered.enter_async_context(Batch(service.judge, service.decoder, pictures, options))
    version = await batch.version()
    outcomes = batch.outcomes(deadline(request))
    if wants_lines(request):
        return StreamingResponse(_lines(request, outcomes), media_type=NDJSON)
    items = sorted([_item(request, *outcome) async for outcome in outcomes], key=lambda item: item.index)
    return await encoded(ScoreBatchResponse(results=items, model=service.settings.model_name, version=version))


@router.post("/rank", openapi_extra=both_forms(RankRequest, ("images",)))
async def rank_images(request: Request) -> RankResponse:
    """Orders 2 to 64 images from the best to the worst.

    About n log2(n) pairs are compared instead of all n (n - 1) / 2, the most informative first, each in both orders of
    presentation. The result is a Bradley-Terry strength for every image, with its standard error.
    """
    service = service_of(request)
    options, images = await read_body(request, RankRequest, ("images",), MAX_RANKED)
    await charge_others(request, len(images))
    async with service.decoder.opened(images) as pictures:
        return await rank(service.judge, pictures, options)


async def _lines(request: Request, outcomes: AsyncIterator[tuple[int, Outcome]]) -> AsyncIterator[str]:
    async for outcome in outcomes:
        yield _item(request, *outcome).model_dump_json() + "\n"


def _item(request: Request, index: int, outcome: Outcome) -> ScoreBatchItem:
    if isinstance(outcome, ScoreResponse):
        return ScoreBatchItem(index=index, result=outcome, problem=None)
    return ScoreBatchItem(index=index, result=None, problem=problem_of(request, outcome))
