"""`POST /v1/score/batch`: many images, one version; all at once, or one JSON line each as they are ready."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from service.api.body import both_forms, read_body
from service.api.callers import charge
from service.api.openapi import problems
from service.api.problems import problem_of
from service.api.service import service_of
from service.contract import (
    MAX_BATCH,
    ScoreBatchItem,
    ScoreBatchRequest,
    ScoreBatchResponse,
    ScoreResponse,
)
from service.errors import ServiceError
from service.images.decoder import Decoder
from service.images.picture import Picture
from service.judging.batch import Batch, Outcome
from service.together import together

NDJSON = "application/x-ndjson"
PATHS = ("/v1/score/batch",)

router = APIRouter(
    prefix="/v1",
    tags=["judge"],
    responses=problems(401, 408, 415, 422, 429, 503, 504),
)


@router.post(
    "/score/batch",
    response_model=ScoreBatchResponse,
    responses={200: {"content": {NDJSON: {"schema": {"type": "string", "description": "A ScoreBatchItem a line."}}}}},
    openapi_extra=both_forms(ScoreBatchRequest, ("images",)),
)
async def score_batch(request: Request) -> Response | ScoreBatchResponse:
    """Scores up to 64 images by one version of the weights; an image that fails does not fail the others.

    With `Accept: application/x-ndjson` every answer is sent as it is ready, one ScoreBatchItem a line.
    """
    service = service_of(request)
    options, images = await read_body(request, ScoreBatchRequest, ("images",), MAX_BATCH)
    await charge(request, len(images))
    pictures = await together(*(_opened(service.decoder, image) for image in images))
    batch = Batch(service.judge, pictures, options)
    try:
        version = await batch.version()
        if NDJSON in request.headers.get("accept", ""):
            return StreamingResponse(_lines(request, batch), media_type=NDJSON)
        items = sorted([_item(request, *outcome) async for outcome in batch.outcomes()], key=lambda item: item.index)
    except BaseException:
        batch.cancel()
        raise
    return ScoreBatchResponse(results=items, model=service.settings.model_name, version=version)


async def _opened(decoder: Decoder, image: bytes | str) -> Picture | ServiceError:
    try:
        return await decoder.open(image)
    except ServiceError as error:
        return error


async def _lines(request: Request, batch: Batch) -> AsyncIterator[str]:
    """The lines of the answer. When the reader goes away, so does the work."""
    try:
        async for outcome in batch.outcomes():
            yield _item(request, *outcome).model_dump_json() + "\n"
    finally:
        batch.cancel()


def _item(request: Request, index: int, outcome: Outcome) -> ScoreBatchItem:
    if isinstance(outcome, ScoreResponse):
        return ScoreBatchItem(index=index, result=outcome, problem=None)
    return ScoreBatchItem(index=index, result=None, problem=problem_of(request, outcome))
