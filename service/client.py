"""The service from Python, blocking or asynchronous.

    with Client("http://127.0.0.1:8000") as client:
        print(client.score(Path("photo.jpg")).score)

    operators = Client("http://127.0.0.1:8001", key=key)
    operators.promote("v0123456789ab")

Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
    wait_random_exponential,
)

from service.contract import (
    AdapterRequest,
    AdapterResponse,
    CompareOptions,
    CompareResponse,
    HealthResponse,
    Message,
    Problem,
    RolloutRequest,
    RolloutResponse,
    ScoreOptions,
    ScoreResponse,
    SwapResponse,
    VersionsResponse,
)

ImageSource = bytes | Path
P = ParamSpec("P")
T = TypeVar("T")

_ATTEMPTS = 5
_RETRIED_STATUSES = {429, 503}
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class ServiceError(Exception):
    """The service answered with a problem; `problem` has its status and stable code."""

    def __init__(self, problem: Problem, retry_after_s: float | None = None) -> None:
        super().__init__(f"{problem.status} {problem.code}: {problem.detail}")
        self.problem = problem
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and the type of its answer. `repeatable`: sending it twice does no harm."""

    method: str
    path: str
    answer: type[T]
    body: Mapping[str, Any]
    repeatable: bool = True


def score(image: ImageSource, options: ScoreOptions | None = None) -> Call[ScoreResponse]:
    """The quality of one image, from 1 to 5."""
    body = _form({"image": image}, options or ScoreOptions())
    return Call("POST", "/v1/score", ScoreResponse, body)


def compare(first: ImageSource, second: ImageSource, options: CompareOptions | None = None) -> Call[CompareResponse]:
    """Which of two images looks better."""
    body = _form({"first": first, "second": second}, options or CompareOptions())
    return Call("POST", "/v1/compare", CompareResponse, body)


def versions() -> Call[VersionsResponse]:
    """Every version, the active one and the one before it."""
    return Call("GET", "/v1/versions", VersionsResponse, {})


def ready() -> Call[HealthResponse]:
    """Whether the engine answers."""
    return Call("GET", "/health/ready", HealthResponse, {})


def promote(version: str) -> Call[SwapResponse]:
    """Hot-swaps a version of the store in. Operators' port."""
    return Call("POST", f"/internal/versions/{version}/promote", SwapResponse, {})


def rollback() -> Call[SwapResponse]:
    """Hot-swaps the previous version back in. Operators' port."""
    return Call("POST", "/internal/rollback", SwapResponse, {}, repeatable=False)


def load_adapter(name: str) -> Call[AdapterResponse]:
    """Loads `<store>/adapters/<name>`, a name never used before. Operators' port."""
    body = _json(AdapterRequest(name=name))
    return Call("POST", "/internal/adapters", AdapterResponse, body, repeatable=False)


def unload_adapter(name: str) -> Call[None]:
    """Unloads an adapter and deletes its directory. Operators' port."""
    return Call("DELETE", f"/internal/adapters/{name}", type(None), {}, repeatable=False)


def rollouts(request: RolloutRequest) -> Call[RolloutResponse]:
    """Samples answers to a batch of prompts, with token ids and log-probabilities. Operators' port."""
    return Call("POST", "/internal/rollouts", RolloutResponse, _json(request))


def encode_image(image: ImageSource) -> str:
    """An image file as a `RolloutRequest` wants it."""
    return base64.b64encode(_bytes(image)).decode()


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
    """The blocking client. Raises ServiceError, or httpx.TransportError if nobody answers."""

    score = _blocking(score)
    compare = _blocking(compare)
    versions = _blocking(versions)
    ready = _blocking(ready)
    promote = _blocking(promote)
    rollback = _blocking(rollback)
    load_adapter = _blocking(load_adapter)
    unload_adapter = _blocking(unload_adapter)
    rollouts = _blocking(rollouts)

    def __init__(self, url: str, key: str | None = None, timeout_s: float = 300.0) -> None:
        self._http = httpx.Client(base_url=url, headers=_authorization(key), timeout=timeout_s)

    def send(self, call: Call[T]) -> T:
        """Sends a call, again where that is safe and promising."""
        return Retrying(**_policy(call))(self._once, call)

    def wait_ready(self, seconds: float = 300.0) -> HealthResponse:
        """Waits until the service answers. Raises the last failure after `seconds`."""
        return Retrying(**_patience(seconds))(self._once, ready())

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _once(self, call: Call[T]) -> T:
        return _answer(call, self._http.request(**_request(call)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """The asynchronous client, otherwise as `Client`."""

    score = _awaited(score)
    compare = _awaited(compare)
    versions = _awaited(versions)
    ready = _awaited(ready)
    promote = _awaited(promote)
    rollback = _awaited(rollback)
    load_adapter = _awaited(load_adapter)
    unload_adapter = _awaited(unload_adapter)
    rollouts = _awaited(rollouts)

    def __init__(self, url: str, key: str | None = None, timeout_s: float = 300.0) -> None:
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.AsyncClient(base_url=url, headers=_authorization(key), timeout=timeout_s, limits=limits)

    async def send(self, call: Call[T]) -> T:
        """Sends a call, again where that is safe and promising."""
        return await AsyncRetrying(**_policy(call))(self._once, call)

    async def wait_ready(self, seconds: float = 300.0) -> HealthResponse:
        """Waits until the service answers. Raises the last failure after `seconds`."""
        return await AsyncRetrying(**_patience(seconds))(self._once, ready())

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _once(self, call: Call[T]) -> T:
        return _answer(call, await self._http.request(**_request(call)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _authorization(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _request(call: Call[Any]) -> dict[str, Any]:
    return {"method": call.method, "url": call.path, **call.body}


def _form(images: Mapping[str, ImageSource], options: Message) -> dict[str, Any]:
    fields = {name: str(value) for name, value in options.model_dump(exclude_none=True).items()}
    return {"files": {name: (name, _bytes(image)) for name, image in images.items()}, "data": fields}


def _json(message: Message) -> dict[str, Any]:
    return {"content": message.model_dump_json(), "headers": {"Content-Type": "application/json"}}


def _bytes(image: ImageSource) -> bytes:
    return image if isinstance(image, bytes) else image.read_bytes()


def _answer(call: Call[T], response: httpx.Response) -> T:
    if response.is_success:
        return TypeAdapter(call.answer).validate_json(response.content or b"null")
    raise ServiceError(_problem(response), _seconds(response.headers.get("Retry-After")))


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


def _seconds(header: str | None) -> float | None:
    return float(header) if header and header.isdecimal() else None


def _policy(call: Call[Any]) -> dict[str, Any]:
    """Retries what never arrived, what the service asks to repeat, and lost answers of repeatable calls."""

    def again(error: BaseException) -> bool:
        if isinstance(error, ServiceError):
            return error.problem.status in _RETRIED_STATUSES
        lost = call.repeatable and not isinstance(error, httpx.TimeoutException)
        return isinstance(error, httpx.TransportError if lost else _NEVER_SENT)

    return {
        "retry": retry_if_exception(again),
        "stop": stop_after_attempt(_ATTEMPTS),
        "wait": _wait,
        "reraise": True,
    }


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, ServiceError) else None
    return asked if asked is not None else wait_random_exponential(multiplier=0.2, max=5)(state)


def _patience(seconds: float) -> dict[str, Any]:
    def not_yet(error: BaseException) -> bool:
        if isinstance(error, ServiceError):
            return error.problem.status == 503
        return isinstance(error, httpx.TransportError)

    return {
        "retry": retry_if_exception(not_yet),
        "stop": stop_after_delay(seconds),
        "wait": wait_fixed(0.5),
        "reraise": True,
    }
