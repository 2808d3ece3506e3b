"""The two clients: every call of `calls.py`, sent, tried again, and read.

Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx
from anyio import to_thread
from tenacity import AsyncRetrying, Retrying

from evoquality import answers, calls
from evoquality.batch import Batch, LongBatch, exact_votes_of, rollouts_of
from evoquality.calls import Call, ImageSource
from evoquality.contract import (
    ExactVotes,
    ExactVotesRequest,
    ExactVotesResponse,
    HealthResponse,
    InfoResponse,
    RolloutRequest,
    RolloutResponse,
    RolloutResult,
    ScoreBatchItem,
    ScoreBatchResponse,
    ScoreOptions,
)
from evoquality.lines import NDJSON
from evoquality.network import Way
from evoquality.retries import Lost, patience, policy

P = ParamSpec("P")
T = TypeVar("T")

_CONNECT_SECONDS = 10.0
_LINES = {"Accept": NDJSON}


def _blocking(build: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    @wraps(build)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(build(*args, **kwargs))

    return method


def _awaited(build: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    @wraps(build)
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(await to_thread.run_sync(partial(build, *args, **kwargs)))  # it may read files

    return method


class _Base:
    """What both clients know: the way to the service, and their patience."""

    def __init__(self, url: str, key: str | None = None, timeout_s: float = 300.0, patience_s: float = 0.0) -> None:
        """`timeout_s` is the time for an answer. A service that has answered once is waited for `patience_s` while it
        is away. Raises httpx.InvalidURL for a URL or a proxy setting that cannot be used.
        """
        self.waiting: Callable[[BaseException], object] = lambda reason: None
        """Hears why a call pauses before it is sent again."""
        self._way = Way.to(url)
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._has_answered = False
        self._options: dict[str, Any] = {"base_url": self._way.url, "headers": _authorization(key)}

    def _policy(self, repeatable: bool) -> dict[str, Any]:
        return policy(repeatable, self._patience_s if self._has_answered else 0.0, self.waiting)

    def _request(self, call: Call[Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
        headers = {**(headers or {}), **call.body.get("headers", {})}
        timeout = _timeout(min(self._timeout_s, call.at_most_s))
        return {"method": call.method, "url": call.path, **call.body, "headers": headers, "timeout": timeout}

    def _answer(self, call: Call[T], response: httpx.Response) -> T:
        if not response.is_success:
            raise answers.refusal(response, self._way.proxied)
        return self._read(call.answer, response.content, response)

    def _only_line(self, call: Call[Any], response: httpx.Response) -> Any:
        return call.line(index=0, result=self._answer(call, response))

    def _read(self, kind: type[T], content: str | bytes, response: httpx.Response) -> T:
        answer = answers.read(kind, content, response, self._way.proxied)
        self._has_answered = True
        return answer


class Client(_Base):
    """The blocking client. Raises ServiceError, or httpx.TransportError if there is no answer."""

    score = _blocking(calls.score)
    compare = _blocking(calls.compare)
    rank = _blocking(calls.rank)
    info = _blocking(calls.info)
    versions = _blocking(calls.versions)
    ready = _blocking(calls.ready)
    promote = _blocking(calls.promote)
    rollback = _blocking(calls.rollback)
    record_benchmarks = _blocking(calls.record_benchmarks)
    overwrite_weights = _blocking(calls.overwrite_weights)
    load_adapter = _blocking(calls.load_adapter)
    unload_adapter = _blocking(calls.unload_adapter)

    def __init__(self, url: str, key: str | None = None, timeout_s: float = 300.0, patience_s: float = 0.0) -> None:
        super().__init__(url, key, timeout_s, patience_s)
        self._http = httpx.Client(transport=self._way.transport(), **self._options)

    def send(self, call: Call[T]) -> T:
        """Sends a call, again where that is safe and promising."""
        return Retrying(**self._policy(call.repeatable))(self._once, call)

    def score_batch(self, images: Sequence[ImageSource], options: ScoreOptions | None = None) -> ScoreBatchResponse:
        """The quality of any number of images, by one version of the weights."""
        batch = Batch(images, options)
        while batch:
            try:
                Retrying(**self._policy(True))(lambda: batch.take_all(self._once(batch.call())))
            except Lost:
                batch.keep(batch.given_up())
        return batch.answer() or _empty(self.info())

    def score_stream(
        self, images: Sequence[ImageSource], options: ScoreOptions | None = None
    ) -> Iterator[ScoreBatchItem]:
        """As `score_batch`, each item as soon as it is ready. An item names its version."""
        batch = Batch(images, options)
        while batch:
            try:
                for attempt in Retrying(**self._policy(True)):
                    with attempt:
                        for item in self._lines(batch.call()):
                            yield from batch.take(item)
                        batch.check()
            except Lost:
                yield from batch.given_up()

    def rollouts(self, request: RolloutRequest) -> RolloutResponse:
        """Samples answers to a batch of prompts, with token ids and log-probabilities, however long they take."""
        batch = rollouts_of(request)
        results = Retrying(**self._policy(True))(self._results, batch)
        return RolloutResponse(results=results, adapter=request.adapter, version=batch.version)

    def exact_votes(self, request: ExactVotesRequest) -> ExactVotesResponse:
        """The probabilities of both votes on a batch of pairs, in both orders of presentation."""
        batch = exact_votes_of(request)
        results = Retrying(**self._policy(True))(self._results, batch)
        return ExactVotesResponse(results=results, version=batch.version)

    def wait_ready(self, seconds: float = 300.0) -> HealthResponse:
        """Waits until the service answers. Raises the last failure after `seconds`."""
        return Retrying(**patience(seconds))(self._once, calls.ready())

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _once(self, call: Call[T]) -> T:
        if call.alive:
            return self._results(LongBatch[T](1, lambda _: call))[0]
        with self._way.named():
            return self._answer(call, self._http.request(**self._request(call)))

    def _results(self, batch: LongBatch[T]) -> list[T]:
        for line in self._lines(batch.call()):
            batch.take(line)
        return batch.results()

    def _lines(self, call: Call[Any]) -> Iterator[Any]:
        response = self._open(call)
        try:
            with self._way.named():
                if _is_whole(call, response):
                    response.read()
                    yield self._only_line(call, response)
                    return
                for line in response.iter_lines():
                    yield self._read(call.line, line, response)
        finally:
            response.close()

    def _open(self, call: Call[Any]) -> httpx.Response:
        with self._way.named():
            response = self._http.send(self._http.build_request(**self._request(call, _LINES)), stream=True)
            if not response.is_success:
                response.read()
                raise answers.refusal(response, self._way.proxied)
            return response

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Base):
    """The asynchronous client, otherwise as `Client`."""

    score = _awaited(calls.score)
    compare = _awaited(calls.compare)
    rank = _awaited(calls.rank)
    info = _awaited(calls.info)
    versions = _awaited(calls.versions)
    ready = _awaited(calls.ready)
    promote = _awaited(calls.promote)
    rollback = _awaited(calls.rollback)
    record_benchmarks = _awaited(calls.record_benchmarks)
    overwrite_weights = _awaited(calls.overwrite_weights)
    load_adapter = _awaited(calls.load_adapter)
    unload_adapter = _awaited(calls.unload_adapter)

    def __init__(self, url: str, key: str | None = None, timeout_s: float = 300.0, patience_s: float = 0.0) -> None:
        super().__init__(url, key, timeout_s, patience_s)
        self._http = httpx.AsyncClient(transport=self._way.async_transport(), **self._options)

    async def send(self, call: Call[T]) -> T:
        """Sends a call, again where that is safe and promising."""
        return await AsyncRetrying(**self._policy(call.repeatable))(self._once, call)

    async def score_batch(
        self, images: Sequence[ImageSource], options: ScoreOptions | None = None
    ) -> ScoreBatchResponse:
        """The quality of any number of images, by one version of the weights."""
        batch = Batch(images, options)

        async def ask() -> None:
            batch.take_all(await self._once(await to_thread.run_sync(batch.call)))

        while batch:
            try:
                await AsyncRetrying(**self._policy(True))(ask)
            except Lost:
                batch.keep(batch.given_up())
        return batch.answer() or _empty(await self.info())

    async def score_stream(
        self, images: Sequence[ImageSource], options: ScoreOptions | None = None
    ) -> AsyncIterator[ScoreBatchItem]:
        """As `score_batch`, each item as soon as it is ready. An item names its version."""
        batch = Batch(images, options)
        while batch:
            try:
                async for attempt in AsyncRetrying(**self._policy(True)):
                    with attempt:
                        async with aclosing(self.lines(await to_thread.run_sync(batch.call))) as lines:
                            async for line in lines:
                                for item in batch.take(line):
                                    yield item
                        batch.check()
            except Lost:
                for item in batch.given_up():
                    yield item

    async def rollouts(self, request: RolloutRequest) -> RolloutResponse:
        """Samples answers to a batch of prompts, with token ids and log-probabilities, however long they take."""
        batch = rollouts_of(request)
        results: list[RolloutResult] = await AsyncRetrying(**self._policy(True))(self._results, batch)
        return RolloutResponse(results=results, adapter=request.adapter, version=batch.version)

    async def exact_votes(self, request: ExactVotesRequest) -> ExactVotesResponse:
        """The probabilities of both votes on a batch of pairs, in both orders of presentation."""
        batch = exact_votes_of(request)
        results: list[ExactVotes] = await AsyncRetrying(**self._policy(True))(self._results, batch)
        return ExactVotesResponse(results=results, version=batch.version)

    async def lines(self, call: Call[Any]) -> AsyncGenerator[Any, None]:
        """The lines of an answer, of the type `call.line`, as they come. The call is not sent again."""
        response = await self._open(call)
        try:
            with self._way.named():
                if _is_whole(call, response):
                    await response.aread()
                    yield self._only_line(call, response)
                    return
                async for line in response.aiter_lines():
                    yield self._read(call.line, line, response)
        finally:
            await response.aclose()

    async def wait_ready(self, seconds: float = 300.0) -> HealthResponse:
        """Waits until the service answers. Raises the last failure after `seconds`."""
        return await AsyncRetrying(**patience(seconds))(self._once, calls.ready())

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _once(self, call: Call[T]) -> T:
        if call.alive:
            return (await self._results(LongBatch[T](1, lambda _: call)))[0]
        with self._way.named():
            return self._answer(call, await self._http.request(**self._request(call)))

    async def _results(self, batch: LongBatch[T]) -> list[T]:
        async with aclosing(self.lines(await to_thread.run_sync(batch.call))) as lines:
            async for line in lines:
                batch.take(line)
        return batch.results()

    async def _open(self, call: Call[Any]) -> httpx.Response:
        with self._way.named():
            response = await self._http.send(self._http.build_request(**self._request(call, _LINES)), stream=True)
            if not response.is_success:
                await response.aread()
                raise answers.refusal(response, self._way.proxied)
            return response

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _is_whole(call: Call[Any], response: httpx.Response) -> bool:
    """True for the answer of an older service, which gives no signs of life."""
    return call.alive and NDJSON not in response.headers.get("Content-Type", "")


def _timeout(seconds: float) -> httpx.Timeout:
    """A long time for the answer, but a short one for the connection."""
    return httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))


def _authorization(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key.strip()}"}


def _empty(info: InfoResponse) -> ScoreBatchResponse:
    return ScoreBatchResponse(results=[], model=info.model, version=info.version)
