"""Every request of the service as a value: method, path, body and type of answer.

Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeGuard, TypeVar

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
    RankOptions,
    RankResponse,
    Request,
    RolloutRequest,
    RolloutResponse,
    ScoreBatchItem,
    ScoreBatchResponse,
    ScoreOptions,
    ScoreResponse,
    SwapResponse,
    VersionsResponse,
    WeightsRequest,
)
from evoquality.lines import ExactVotesLine, RolloutLine, SwapLine

ImageSource = bytes | bytearray | memoryview | str | os.PathLike[str]
"""An image file's bytes, its path, or as a str its URL (https: or data:)."""

_LOOK_S = 15.0
"""For calls that ask nothing of the model."""
_SILENCE_S = 60.0
"""For long answers, whose service gives a sign of life every few seconds."""
_URL = re.compile(r"data:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and the type of its answer. `repeatable`: sending it twice does no harm. `at_most_s`: the client's
    time limit, or this if it is less. `line`: the type of a line, if the answer may come line by line. `alive`: the
    service gives signs of life until the answer is there, which is the last line."""

    method: str
    path: str
    answer: type[T]
    body: Mapping[str, Any]
    repeatable: bool = True
    at_most_s: float = float("inf")
    line: type[Any] = object
    alive: bool = False


def score(image: ImageSource, options: ScoreOptions | None = None) -> Call[ScoreResponse]:
    """The quality of one image, from 1 to 5."""
    return Call("POST", "/v1/score", ScoreResponse, _question(options or ScoreOptions(), image=image))


def compare(first: ImageSource, second: ImageSource, options: CompareOptions | None = None) -> Call[CompareResponse]:
    """Compares two images and says which one looks better."""
    return Call(
        "POST", "/v1/compare", CompareResponse, _question(options or CompareOptions(), first=first, second=second)
    )


def score_batch(images: Sequence[ImageSource], options: ScoreOptions | None = None) -> Call[ScoreBatchResponse]:
    """The quality of up to 64 images, by one version of the weights. The clients' method takes any number."""
    question = _question(options or ScoreOptions(), images=list(images))
    return Call("POST", "/v1/score/batch", ScoreBatchResponse, question, line=ScoreBatchItem)


def rank(images: Sequence[ImageSource], options: RankOptions | None = None) -> Call[RankResponse]:
    """2 to 64 images in the order of their quality."""
    return Call("POST", "/v1/rank", RankResponse, _question(options or RankOptions(), images=list(images)))


def info() -> Call[InfoResponse]:
    """The serving version, and the limits of a request."""
    return Call("GET", "/v1/info", InfoResponse, {}, at_most_s=_LOOK_S)


def versions() -> Call[VersionsResponse]:
    """Every version, the active one and the one before it."""
    return Call("GET", "/v1/versions", VersionsResponse, {}, at_most_s=_LOOK_S)


def ready() -> Call[HealthResponse]:
    """Succeeds if the engine answers."""
    return Call("GET", "/health/ready", HealthResponse, {}, at_most_s=_LOOK_S)


def promote(version: str) -> Call[SwapResponse]:
    """Hot-swaps a version of the store in. Operators' port."""
    return _swap("POST", f"/internal/versions/{version}/promote")


def rollback() -> Call[SwapResponse]:
    """Hot-swaps the previous version back in. Operators' port."""
    return _swap("POST", "/internal/rollback", repeatable=False)


def record_benchmarks(version: str, benchmarks: Mapping[str, Benchmark]) -> Call[None]:
    """Replaces a version's results by the name of the labelled set. Operators' port."""
    body = _json(BenchmarksRequest(benchmarks=dict(benchmarks)))
    return Call("PUT", f"/internal/versions/{version}/benchmarks", type(None), body)


def overwrite_weights(name: str) -> Call[SwapResponse]:
    """Replaces the weights of a rollout engine by those in `<handover>/<name>`. Operators' port."""
    return _swap("PUT", "/internal/weights", _json(WeightsRequest(name=name)))


def load_adapter(name: str) -> Call[AdapterResponse]:
    """Loads `<store>/adapters/<name>`, a name never used before. Operators' port."""
    body = _json(AdapterRequest(name=name))
    return Call("POST", "/internal/adapters", AdapterResponse, body, repeatable=False)


def unload_adapter(name: str) -> Call[None]:
    """Unloads an adapter and deletes its directory. Operators' port."""
    return Call("DELETE", f"/internal/adapters/{name}", type(None), {}, repeatable=False)


def rollouts(request: RolloutRequest) -> Call[RolloutResponse]:
    """Samples answers to a batch of prompts, with token ids and log-probabilities. Operators' port."""
    return Call("POST", "/internal/rollouts", RolloutResponse, _json(request), at_most_s=_SILENCE_S, line=RolloutLine)


def exact_votes(request: ExactVotesRequest) -> Call[ExactVotesResponse]:
    """The probabilities of both votes on a batch of pairs, in both orders of presentation. Operators' port."""
    body = _json(request)
    return Call("POST", "/internal/exact-votes", ExactVotesResponse, body, at_most_s=_SILENCE_S, line=ExactVotesLine)


def encode_image(image: ImageSource) -> str:
    """An image file as a `RolloutRequest` or an `ExactVotesRequest` wants it."""
    return base64.b64encode(_bytes(image)).decode()


def _question(options: Request, **images: ImageSource | list[ImageSource]) -> dict[str, Any]:
    """A form with the images as files, or JSON if some of them are URLs."""
    fields = options.model_dump(exclude_none=True)
    files = [
        (name, image) for name, given in images.items() for image in (given if isinstance(given, list) else [given])
    ]
    if not any(_is_url(image) for _, image in files):
        data = {name: str(value) for name, value in fields.items()}
        return {"files": [(name, ("image", _bytes(image))) for name, image in files], "data": data}
    texts = {
        name: list(map(_text, given)) if isinstance(given, list) else _text(given) for name, given in images.items()
    }
    return {"json": fields | texts}


def _swap(method: str, path: str, body: Mapping[str, Any] | None = None, repeatable: bool = True) -> Call[SwapResponse]:
    return Call(method, path, SwapResponse, body or {}, repeatable, _SILENCE_S, SwapLine, alive=True)


def _json(message: Request) -> dict[str, Any]:
    return {"content": message.model_dump_json(), "headers": {"Content-Type": "application/json"}}


def _is_url(image: ImageSource) -> TypeGuard[str]:
    return isinstance(image, str) and _URL.match(image) is not None


def _text(image: ImageSource) -> str:
    return image if _is_url(image) else encode_image(image)


def _bytes(image: ImageSource) -> bytes:
    return Path(image).read_bytes() if isinstance(image, str | os.PathLike) else bytes(image)
