"""Operators' and internal routes: promotion, rollback, weights, adapters, rollouts, exact votes. All need the key.

The routes read their bodies themselves, after the key is checked, so that nobody else can fill the memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from PIL.Image import Image

from evoquality.contract import (
    AdapterRequest,
    AdapterResponse,
    BenchmarksRequest,
    ExactVotesRequest,
    ExactVotesResponse,
    RolloutRequest,
    RolloutResponse,
    SwapResponse,
    WeightsRequest,
)
from service.api.body import json_form, read_message
from service.api.dependencies import only_in
from service.api.encoding import encoded
from service.api.lines import Lines, UntilAnswered, described, wants_lines
from service.api.openapi import problems
from service.api.service import service_of
from service.api.watch import WatchedRoute
from service.concurrency import file_work, gather
from service.judging.exact_votes import ExactVoting
from service.judging.rollouts import Rollouts
from service.versions.writing import written

router = APIRouter(
    prefix="/internal",
    tags=["operators"],
    responses=problems(401, 404, 409, 422, 503, 507),
)
watched = APIRouter(route_class=WatchedRoute)
"""Routes whose work is cancelled when the client hangs up. A swap is, too, while it waits; once begun, it ends."""
SERVING, ROLLOUT = [Depends(only_in("serve"))], [Depends(only_in("rollout"))]


@watched.post("/versions/{version}/promote", response_model=SwapResponse, responses=described("SwapLine"))
async def promote(request: Request, version: str, until_answered: UntilAnswered) -> SwapResponse | Response:
    """Checks a version of the store and hot-swaps it in; refused versions never serve. The store's pointer moves along.

    A replica that follows the pointer swaps at once, without waiting for its turn, if the pointer names the version;
    a rollout engine leaves the pointer where it is.

    Large weights take minutes. With `Accept: application/x-ndjson` there are signs of life until the answer, one
    SwapLine a line.
    """
    await request.body()  # from here on it is noticed if the client hangs up
    return await _swapped(request, until_answered, partial(service_of(request).swapper.promote, version))


@watched.post("/rollback", dependencies=SERVING, response_model=SwapResponse, responses=described("SwapLine"))
async def rollback(request: Request, until_answered: UntilAnswered) -> SwapResponse | Response:
    """Hot-swaps the previous version back in; not on a replica that follows the store's pointer."""
    await request.body()
    return await _swapped(request, until_answered, service_of(request).swapper.rollback)


@watched.put(
    "/weights",
    dependencies=ROLLOUT,
    response_model=SwapResponse,
    responses=described("SwapLine"),
    openapi_extra=json_form(WeightsRequest),
)
async def overwrite(request: Request, until_answered: UntilAnswered) -> SwapResponse | Response:
    """Role rollout: replaces the weights by those handed over in `<handover>/<name>`; their version is `name`."""
    handed = await read_message(request, WeightsRequest)
    return await _swapped(request, until_answered, partial(service_of(request).swapper.overwrite, handed.name))


async def _swapped(
    request: Request, until_answered: AsyncExitStack, swap: Callable[[], Awaitable[SwapResponse]]
) -> SwapResponse | Response:
    async def run(lines: Lines[SwapResponse]) -> None:
        lines.finished(0, await swap())

    if wants_lines(request):
        return await (await until_answered.enter_async_context(Lines(request, run))).response()
    return await swap()


@router.put(
    "/versions/{version}/benchmarks",
    status_code=HTTPStatus.NO_CONTENT,
    openapi_extra=json_form(BenchmarksRequest),
)
async def record_benchmarks(request: Request, version: str) -> None:
    """Replaces what is known of a version's results on labelled sets; `GET /v1/versions` shows it."""
    measured = await read_message(request, BenchmarksRequest)
    with written():
        await file_work(service_of(request).store.record_benchmarks, version, measured)


@watched.post(
    "/rollouts",
    response_model=RolloutResponse,
    responses=described("RolloutLine"),
    openapi_extra=json_form(RolloutRequest),
)
async def rollouts(request: Request, until_answered: UntilAnswered) -> Response:
    """Answers a batch of prompts by one version and one adapter, with token ids and log-probabilities.

    With `Accept: application/x-ndjson` each result is sent as it is ready, one RolloutLine a line, and a line without a
    result while nothing is: a sign of life every few seconds. A problem that comes late is the last line.
    """
    batch = await read_message(request, RolloutRequest)
    return await _answered(request, until_answered, service_of(request).rollouts, batch)


@watched.post(
    "/exact-votes",
    response_model=ExactVotesResponse,
    responses=described("ExactVotesLine"),
    openapi_extra=json_form(ExactVotesRequest),
)
async def exact_votes(request: Request, until_answered: UntilAnswered) -> Response:
    """The probabilities of both votes on many pairs, each in both orders, by one version of the weights.

    With `Accept: application/x-ndjson` as rollouts are, one ExactVotesLine a line.
    """
    batch = await read_message(request, ExactVotesRequest)
    return await _answered(request, until_answered, service_of(request).exact_votes, batch)


async def _answered(
    request: Request, until_answered: AsyncExitStack, judges: Rollouts | ExactVoting, batch: Any
) -> Response:
    """The answer to a batch of theirs, line by line if the caller asks for it."""

    async def run(lines: Lines[Any]) -> None:
        async with _opened(request, batch.images) as images:
            await judges.run(batch, images, lines.begun, lines.finished)

    if wants_lines(request):
        return await (await until_answered.enter_async_context(Lines(request, run))).response()
    async with _opened(request, batch.images) as images:
        answer = await judges.answer(batch, images)
    return await encoded(answer)


@asynccontextmanager
async def _opened(request: Request, images: Mapping[str, str]) -> AsyncIterator[dict[str, Image]]:
    """The pixels of a batch's images. Raises as `Decoder.opened`."""
    async with service_of(request).decoder.opened(images.values(), for_trainer=True) as pictures:
        yield dict(zip(images, await gather(*(picture.pixels() for picture in pictures)), strict=True))


@router.post("/adapters", status_code=HTTPStatus.CREATED, openapi_extra=json_form(AdapterRequest))
async def load_adapter(request: Request) -> AdapterResponse:
    """Loads `<store>/adapters/<name>` under a name never used before."""
    adapter = await read_message(request, AdapterRequest)
    return await service_of(request).adapters.load(adapter.name)


@router.get("/adapters")
async def adapters(request: Request) -> list[AdapterResponse]:
    """The adapters that rollouts may name."""
    return list(service_of(request).adapters.list())


@router.delete("/adapters/{name}", status_code=HTTPStatus.NO_CONTENT)
async def remove_adapter(request: Request, name: str) -> None:
    """Waits for the adapter's running requests, unloads it and deletes its directory, unless the store is read-only."""
    await service_of(request).adapters.remove(name)


router.include_router(watched)
