"""A caller of `make replicas` takes a refusal for a failure, and reads every version that an answer names."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from service.client import calls
from service.contract import ImageSize, ScoreBatchItem, ScoreBatchResponse, ScoreResponse
from tests.benchmarks.replicas.answers import Answer, ask, read_answers
from tests.service.conftest import picture

IMAGES = (Path("a.png"), Path("b.png"))
SIZE = ImageSize(width=28, height=28, seen_width=28, seen_height=28)


def score(version: str, value: float | None = 3.0) -> ScoreResponse:
    return ScoreResponse(
        score=value, std=0.1, entropy=1.0, mode="expected", samples=None, unreadable=0, distribution=None,
        answers=None, image=SIZE, model="m", version=version,
    )  # fmt: skip


def batch(*scores: ScoreResponse) -> str:
    items = [ScoreBatchItem(index=index, result=result, problem=None) for index, result in enumerate(scores)]
    return ScoreBatchResponse(results=items, model="m", version="v1").model_dump_json()


def asked(status: int, body: str) -> tuple[Answer, int]:
    """What a caller makes of an answer, and how often it asked for it."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(status, text=body, headers={"X-Replica": "replica-2", "Retry-After": "0"})

    async def once() -> Answer:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://balancer") as client:
            return await ask(client, calls.score_batch([picture(1), picture(2)]), IMAGES)

    return asyncio.run(once()), len(requests)


def test_a_batch_has_a_value_an_image_and_names_its_version() -> None:
    found, _ = asked(200, batch(score("v1", 3.0), score("v1", 4.0)))
    assert (found.versions, found.values, found.error) == (["v1"], {"a": 3.0, "b": 4.0}, None)
    assert found.replica == "replica-2"
    assert found.received >= found.sent


def test_every_version_that_a_batch_names_is_read() -> None:
    assert asked(200, batch(score("v1"), score("v2")))[0].versions == ["v1", "v2"]


@pytest.mark.parametrize(
    ("status", "body"),
    [(503, "swapping"), (200, "{}"), (200, batch(score("v1"), score("v1", None))), (200, batch(score("v1")))],
    ids=["refused", "no answer", "no value", "an image without an answer"],
)
def test_anything_else_is_a_failure_and_is_not_asked_again(status: int, body: str) -> None:
    found, times = asked(status, body)
    assert found.error
    assert times == 1


def test_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = Answer(sent=1, received=2, replica="replica-1", versions=["v1"], values={"a": 3.0})
    (tmp_path / "answers.jsonl").write_text(written.line())
    assert list(read_answers(tmp_path / "answers.jsonl")) == [written]
    assert json.loads(written.line())["error"] is None
