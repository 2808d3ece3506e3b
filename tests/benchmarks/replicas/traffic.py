"""Clients that keep sending requests through the balancer and log every answer. Nothing is retried.

    python -m tests.benchmarks.replicas.traffic --url http://127.0.0.1:8000 --images DIR --out answers.jsonl

Requests use mode `expected`, so a version always gives the same answer to a question. SIGTERM ends the clients.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any

import httpx
import typer

from evoquality import calls
from evoquality.contract import CompareResponse, ScoreBatchResponse, ScoreResponse
from trainer.files import read_jsonl

Response = ScoreResponse | CompareResponse | ScoreBatchResponse
Images = tuple[Path, ...]
IMAGES = 12
BATCH = 4
TIMEOUT_SECONDS = 90.0
Question = tuple[calls.Call[Any], Images]


@dataclass
class Answer:
    """Outcome of one request. `sent` and `received` in seconds since the epoch; `replica` from the X-Replica header."""

    sent: float
    received: float = 0
    replica: str = ""
    versions: list[str] = field(default_factory=list)
    """Distinct versions named in the answer; a batch names one for itself and one per image."""
    values: dict[str, float] = field(default_factory=dict)
    """Image name -> score, or "first+second" -> probability that the first looks better."""
    error: str | None = None

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self)) + "\n"


def read_answers(file: Path) -> Iterator[Answer]:
    """Reads a file of such lines."""
    return (Answer(**row) for row in read_jsonl(file))


async def ask(client: httpx.AsyncClient, call: calls.Call[Any], images: Images) -> Answer:
    """Sends one request, without a retry."""
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
    """Fills in versions and values. Raises ValueError if a part of the answer has no value."""
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


def main(
    url: Annotated[str, typer.Option(help="Address of the balancer.")],
    images: Annotated[Path, typer.Option(help="Folder of images; the first dozen are used.")],
    out: Annotated[Path, typer.Option(help="Output file, one line of JSON per request.")],
    callers: Annotated[int, typer.Option(help="Clients per kind: scores, comparisons, batches.")] = 2,
    pause: Annotated[float, typer.Option(help="Seconds between two requests of one client.")] = 0.1,
) -> None:
    """Sends requests until SIGTERM, then waits for the answers still outstanding."""
    kinds = _questions(sorted(images.iterdir())[:IMAGES])
    asyncio.run(_keep_asking(url, kinds * callers, out, pause))


def _questions(images: list[Path]) -> list[list[Question]]:
    """Requests by kind: scores, comparisons, batches."""
    pairs = list(itertools.pairwise(images))
    batches = [tuple(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    return [
        [(calls.score(image), (image,)) for image in images],
        [(calls.compare(first, second), (first, second)) for first, second in pairs],
        [(calls.score_batch(batch), batch) for batch in batches],
    ]


async def _keep_asking(url: str, callers: list[list[Question]], out: Path, pause: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with out.open("w") as file:
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS) as client, asyncio.TaskGroup() as group:
            for number, questions in enumerate(callers):
                turned = questions[number % len(questions) :] + questions[: number % len(questions)]
                group.create_task(_caller(client, turned, file, pause, stop))


async def _caller(
    client: httpx.AsyncClient, questions: list[Question], file: IO[str], pause: float, stop: asyncio.Event
) -> None:
    for call, images in itertools.cycle(questions):
        if stop.is_set():
            return
        file.write((await ask(client, call, images)).line())
        await asyncio.sleep(pause)


if __name__ == "__main__":
    typer.run(main)
