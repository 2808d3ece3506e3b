"""One request through the balancer and what came of it: sent once, so that a refusal is a failure."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from service.client import calls
from service.contract import CompareResponse, ScoreBatchResponse, ScoreResponse
from trainer.files import read_jsonl

Response = ScoreResponse | CompareResponse | ScoreBatchResponse
Images = tuple[Path, ...]


@dataclass
class Answer:
    """`sent` and `received` in seconds since the epoch; `replica` as the balancer tells it."""

    sent: float
    received: float = 0
    replica: str = ""
    versions: list[str] = field(default_factory=list)
    """Each that the answer names once; a batch names one for itself and one an image."""
    values: dict[str, float] = field(default_factory=dict)
    """The score of each image, or the probability that the first of two looks better, by the images' names."""
    error: str | None = None

    def line(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self)) + "\n"


def read_answers(file: Path) -> Iterator[Answer]:
    """The answers in a file of their lines."""
    return (Answer(**row) for row in read_jsonl(file))


async def ask(client: httpx.AsyncClient, call: calls.Call[Any], images: Images) -> Answer:
    """Sends one request, and never again."""
    answer = Answer(sent=time.time())
    try:
        response = await client.request(call.method, call.path, **call.body)
        answer.replica = response.headers.get("X-Replica", "")
        if response.is_success:
            _read(answer, call.answer.model_validate_json(response.content), images)
        else:
            answer.error = f"{response.status_code}: {response.text[:300]}"
    except (httpx.HTTPError, ValueError) as error:
        answer.error = f"{type(error).__name__}: {error}"
    answer.received = time.time()
    return answer


def _read(answer: Answer, response: Response, images: Images) -> None:
    """Raises ValueError if a part has no value."""
    if isinstance(response, CompareResponse):
        found = {"+".join(image.stem for image in images): response.probability_first}
        named = [response.version]
    else:
        scores = _scores(response)
        found = {image.stem: one.score for image, one in zip(images, scores, strict=True)}
        named = [response.version, *(one.version for one in scores)]
    answer.versions = sorted(set(named))
    answer.values = {question: value for question, value in found.items() if value is not None}
    if len(answer.values) < len(found):
        raise ValueError("an answer without a value")


def _scores(response: ScoreResponse | ScoreBatchResponse) -> list[ScoreResponse]:
    if isinstance(response, ScoreResponse):
        return [response]
    problems = [item.problem.code for item in response.results if item.problem]
    if problems:
        raise ValueError(f"images of a batch were refused: {', '.join(problems)}")
    return [item.result for item in response.results if item.result]
