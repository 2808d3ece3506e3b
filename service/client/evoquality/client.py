"""The two clients: every call of `calls.py`, sent, tried again, and read.

Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError
from tenacity import AsyncRetrying, Retrying

from evoquality import calls
from evoquality.calls import Call, ImageSource
from evoquality.contract import HealthResponse, Problem, ScoreBatchItem, ScoreOptions
from evoquality.retries import ServiceError, patience, policy, retry_after

P = ParamSpec("P")
T = TypeVar("T")

_CONNECT_SECONDS = 10.0
_LINES = {"Accept": "application/x-ndjson"}


def _blocking(build: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    @wraps(build)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(build(*args, **kwargs))

    return method


def _awaited(build: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    @wraps(build)
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(build(*args, **kwargs))

    return method


class Client:
    """The blocking client. Raises ServiceError, or httpx.TransportError if there is no answer."""

    score = _blocking(calls.score)
    compare = _blocking(calls.compare)
    score_batch = _blocking(calls.score_batch)
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
    rollouts = _blocking(calls.rollouts)
    exact_votes = _blocking(calls.exact_votes)

    def __init__(self, url: str, key: str | None = None, timeout_s: float = 300.0) -> None:
        self._http = httpx.Client(base_url=url, headers=_authorization(key), timeout=_timeout(timeout_s))

    def send(self, call: Call[T]) -> T:
        """Sends a call, again where that is safe and promising."""
        return Retrying(**policy(call.repeatable))(self._once, call)

    def score_stream(
        self, images: Sequence[ImageSource], options: ScoreOptions | None = None
    ) -> Iterator[ScoreBatchItem]:
        """As `score_batch`, each item as soon as it is ready. Once items come, nothing is sent again."""
        call = calls.score_batch(images, options)
        response = Retrying(**policy(call.repeatable))(self._open, call)
        try:
            yield from map(ScoreBatchItem.model_validate_json, response.iter_lines())
        finally:
            response.close()

    def wait_ready(self, seconds: float = 300.0) -> HealthResponse:
        """Waits until the service answers. Raises the last failure after `seconds`."""
        return Retrying(**patience(seconds))(self._once, calls.ready())

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _once(self, call: Call[T]) -> T:
        return _answer(call, self._http.request(**_request(call)))

    def _open(self, call: Call[Any]) -> httpx.Response:
        response = self._http.send(self._http.build_request(**_request(call, _LINES)), stream=True)
        if not response.is_success:
            response.read()
            raise _refusal(response)
        return response

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """The asynchronous client, otherwise as `Client`."""

    score = _awaited(calls.score)
    compare = _awaited(calls.compare)
    score_batch = _awaited(calls.score_batch)
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
    rollouts = _awaited(calls.rollouts)
    exact_votes = _awaited(calls.exact_votes)

    def __init__(self, url: str, key: str | None = None, timeout_s: float = 300.0) -> None:
        limits = httpx.Limits(max_connections=None)
        headers, timeout = _authorization(key), _timeout(timeout_s)
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, limits=limits)

    async def send(self, call: Call[T]) -> T:
        """Sends a call, again where that is safe and promising."""
        return await AsyncRetrying(**policy(call.repeatable))(self._once, call)

    async def score_stream(
        self, images: Sequence[ImageSource], options: ScoreOptions | None = None
    ) -> AsyncIterator[ScoreBatchItem]:
        """As `score_batch`, each item as soon as it is ready. Once items come, nothing is sent again."""
        call = calls.score_batch(images, options)
        response: httpx.Response = await AsyncRetrying(**policy(call.repeatable))(self._open, call)
        try:
            async for line in response.aiter_lines():
                yield ScoreBatchItem.model_validate_json(line)
        finally:
            await response.aclose()

    async def wait_ready(self, seconds: float = 300.0) -> HealthResponse:
        """Waits until the service answers. Raises the last failure after `seconds`."""
        return await AsyncRetrying(**patience(seconds))(self._once, calls.ready())

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _once(self, call: Call[T]) -> T:
        return _answer(call, await self._http.request(**_request(call)))

    async def _open(self, call: Call[Any]) -> httpx.Response:
        response = await self._http.send(self._http.build_request(**_request(call, _LINES)), stream=True)
        if not response.is_success:
            await response.aread()
            raise _refusal(response)
        return response

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _timeout(seconds: float) -> httpx.Timeout:
    """A long time for the answer, but a short one for the connection."""
    return httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))


def _authorization(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _request(call: Call[Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
    return {"method": call.method, "url": call.path, "headers": headers, **call.body}


def _answer(call: Call[T], response: httpx.Response) -> T:
    if response.is_success:
        return TypeAdapter(call.answer).validate_json(response.content or b"null")
    raise _refusal(response)


def _refusal(response: httpx.Response) -> ServiceError:
    return ServiceError(_problem(response), retry_after(response.headers.get("Retry-After")))


def _problem(response: httpx.Response) -> Problem:
    """The service's problem, or one made of what something between answered."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        return Problem(
            title=response.reason_phrase,
            status=response.status_code,
            detail="The answer is not the service's own.",
            instance=response.url.path,
            code="http_error",
            request_id=response.headers.get("X-Request-Id", ""),
        )
