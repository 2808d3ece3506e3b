"""Every request of the service as a value: method, path, body and type of answer.

Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from evoquality.contract import (
    AdapterRequest,
    AdapterResponse,
    Benchmark,
    BenchmarksRequest,
    CompareOptions,
    CompareResponse,
    ExactVotesRequest,
    ExactVotesResponse,
    HealthResponse,
    InfoResponse,
    Message,
    RankOptions,
    RankResponse,
    RolloutRequest,
    RolloutResponse,
    ScoreBatchResponse,
    ScoreOptions,
    ScoreResponse,
    SwapResponse,
    VersionsResponse,
    WeightsRequest,
)

ImageSource = bytes | Path
T = TypeVar("T")


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
    body = _form([("image", image)], options or ScoreOptions())
    return Call("POST", "/v1/score", ScoreResponse, body)


def compare(first: ImageSource, second: ImageSource, options: CompareOptions | None = None) -> Call[CompareResponse]:
    """Compares two images and says which one looks better."""
    body = _form([("first", first), ("second", second)], options or CompareOptions())
    return Call("POST", "/v1/compare", CompareResponse, body)


def score_batch(images: Sequence[ImageSource], options: ScoreOptions | None = None) -> Call[ScoreBatchResponse]:
    """The quality of up to 64 images, by one version of the weights."""
    body = _form((("images", image) for image in images), options or ScoreOptions())
    return Call("POST", "/v1/score/batch", ScoreBatchResponse, body)


def rank(images: Sequence[ImageSource], options: RankOptions | None = None) -> Call[RankResponse]:
    """2 to 64 images in the order of their quality."""
    body = _form((("images", image) for image in images), options or RankOptions())
    return Call("POST", "/v1/rank", RankResponse, body)


def info() -> Call[InfoResponse]:
    """The serving version, and the limits of a request."""
    return Call("GET", "/v1/info", InfoResponse, {})


def versions() -> Call[VersionsResponse]:
    """Every version, the active one and the one before it."""
    return Call("GET", "/v1/versions", VersionsResponse, {})


def ready() -> Call[HealthResponse]:
    """Succeeds if the engine answers."""
    return Call("GET", "/health/ready", HealthResponse, {})


def promote(version: str) -> Call[SwapResponse]:
    """Hot-swaps a version of the store in. Operators' port."""
    return Call("POST", f"/internal/versions/{version}/promote", SwapResponse, {})


def rollback() -> Call[SwapResponse]:
    """Hot-swaps the previous version back in. Operators' port."""
    return Call("POST", "/internal/rollback", SwapResponse, {}, repeatable=False)


def record_benchmarks(version: str, benchmarks: Mapping[str, Benchmark]) -> Call[None]:
    """Replaces a version's results by the name of the labelled set. Operators' port."""
    body = _json(BenchmarksRequest(benchmarks=dict(benchmarks)))
    return Call("PUT", f"/internal/versions/{version}/benchmarks", type(None), body)


def overwrite_weights(name: str) -> Call[SwapResponse]:
    """Replaces the weights of a rollout engine by those in `<handover>/<name>`. Operators' port."""
    return Call("PUT", "/internal/weights", SwapResponse, _json(WeightsRequest(name=name)))


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


def exact_votes(request: ExactVotesRequest) -> Call[ExactVotesResponse]:
    """The probabilities of both votes on a batch of pairs, in both orders of presentation. Operators' port."""
    return Call("POST", "/internal/exact-votes", ExactVotesResponse, _json(request))


def encode_image(image: ImageSource) -> str:
    """An image file as a `RolloutRequest` or an `ExactVotesRequest` wants it."""
    return base64.b64encode(_bytes(image)).decode()


def _form(images: Iterable[tuple[str, ImageSource]], options: Message) -> dict[str, Any]:
    fields = {name: str(value) for name, value in options.model_dump(exclude_none=True).items()}
    return {"files": [(name, ("image", _bytes(image))) for name, image in images], "data": fields}


def _json(message: Message) -> dict[str, Any]:
    return {"content": message.model_dump_json(), "headers": {"Content-Type": "application/json"}}


def _bytes(image: ImageSource) -> bytes:
    return image if isinstance(image, bytes) else image.read_bytes()
